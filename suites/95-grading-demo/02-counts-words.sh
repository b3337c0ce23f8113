# A table of cases: text, expected answer. The last line of stdout is JSON; what went wrong is on stderr.

passed=0
total=0
while IFS='|' read -r text expected; do
    total=$((total + 1))
    # shellcheck disable=SC2059  # the escapes in the text are meant
    printf "$text" >case.txt
    said=$(./wordcount case.txt)
    if [ "$said" = "$expected" ]; then
        passed=$((passed + 1))
    else
        echo "case $total, \"$text\": expected $expected, got $said" >&2
    fi
done <<'END'
|0 0 0
one two three\n|1 3 14
\n\n\n|3 0 3
  tabs\tand\vother\fspace \n|1 4 24
no line end|0 3 11
END

echo "{ \"shortResult\": \"$passed/$total cases passed\" }"
[ "$passed" -eq "$total" ]
