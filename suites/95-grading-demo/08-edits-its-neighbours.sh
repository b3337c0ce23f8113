# What a hostile or clumsy submission would do: spoil the next test, the program and the Makefile. It may; it is its copy.

echo 'exit 1' >09-sees-nothing-of-it.sh || exit 2
printf '#!/bin/sh\necho "42 42 42"\n' >wordcount || exit 2
rm Makefile || exit 2
echo "I was here" >graffiti.txt || exit 2

if [ "$(./wordcount)" = "42 42 42" ]; then
    echo "this copy is spoiled"
else
    echo "I could not spoil my own copy"
    exit 1
fi
