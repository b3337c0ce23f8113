# A set-up without a manifest: every *.sh is one trial, in byte order, with the default time limit. This one ends in JSON.

notes=$(grep -c '^- ' notes.txt)
echo "{ \"shortResult\": \"$notes/3 notes found\" }"
[ "$notes" -eq 3 ]
