# Builds again in this copy, strictly. What the compiler says is the long result.

if make -s clean wordcount CFLAGS='-std=c99 -Wall -Wextra -Werror' >&2; then
    echo "no warnings"
else
    echo "the compiler is not content"
    exit 1
fi
