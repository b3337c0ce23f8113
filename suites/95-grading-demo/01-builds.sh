# The make step has left a program that runs. A plain last line of stdout is the short result.

test -x ./wordcount || { echo "there is no program named wordcount"; exit 1; }
printf 'hello\n' >one.txt
said=$(./wordcount one.txt)
if [ "$said" != "1 1 6" ]; then
    echo "counting one word, I expected \"1 1 6\""
    echo "wordcount said: $said" >&2
    exit 1
fi
echo "builds and answers"
