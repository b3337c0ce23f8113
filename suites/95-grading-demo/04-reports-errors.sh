# A missing file is exit code 1, wrong usage is 2; both say why on stderr and nothing on stdout.

passed=0

said=$(./wordcount no-such-file.txt 2>why.txt)
code=$?
if [ "$code" -eq 1 ] && [ -z "$said" ] && grep -q 'no-such-file.txt' why.txt; then
    passed=$((passed + 1))
else
    echo "missing file: exit code $code, stdout \"$said\", stderr \"$(cat why.txt)\"" >&2
fi

for words in "--frobnicate" "one.txt two.txt"; do
    # shellcheck disable=SC2086  # two words are two arguments
    said=$(./wordcount $words 2>why.txt)
    code=$?
    if [ "$code" -eq 2 ] && [ -z "$said" ] && grep -q '^usage:' why.txt; then
        passed=$((passed + 1))
    else
        echo "wordcount $words: exit code $code, stdout \"$said\", stderr \"$(cat why.txt)\"" >&2
    fi
done

echo "{ \"shortResult\": \"$passed/3 error cases passed\", \"cases\": 3 }"
[ "$passed" -eq 3 ]
