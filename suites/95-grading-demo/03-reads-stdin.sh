# The same text must give the same numbers from a file and from a pipe.

printf 'to be\nor not to be\n' >hamlet.txt
from_file=$(./wordcount hamlet.txt)
from_pipe=$(./wordcount <hamlet.txt)
echo "from a file: $from_file, from a pipe: $from_pipe"
[ "$from_pipe" = "2 6 19" ] && [ "$from_file" = "$from_pipe" ]
