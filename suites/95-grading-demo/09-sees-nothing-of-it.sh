# Runs after 08-edits-its-neighbours.sh. That this text runs at all shows that the edit of it was not seen here.

traces=0
for trace in graffiti.txt one.txt case.txt hamlet.txt why.txt; do
    if [ -e "$trace" ]; then
        echo "a file of another script is here: $trace" >&2
        traces=$((traces + 1))
    fi
done
if [ ! -f Makefile ]; then
    echo "the Makefile is gone" >&2
    traces=$((traces + 1))
fi
if [ "$(printf 'fresh copy\n' | ./wordcount)" != "1 2 11" ]; then
    echo "the program is not the one that make built" >&2
    traces=$((traces + 1))
fi

echo "{ \"shortResult\": \"$traces traces of other scripts\" }"
[ "$traces" -eq 0 ]
