# The script contract itself: /bin/sh, an empty stdin, a home of one's own, and no variable beyond the promised ones.

problems=0

for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
    case $name in
        PATH | HOME | LANG | TMPDIR | CHICKADEE_ASSIGNMENT_SEED) ;;
        PWD | OLDPWD | SHLVL | _) ;; # made by the shell itself
        *)
            echo "there is a variable $name" >&2
            problems=$((problems + 1))
            ;;
    esac
done
if [ "$(cd -P "$HOME" && pwd)" != "$(pwd -P)" ]; then
    echo "HOME is $HOME, the working directory is $(pwd)" >&2
    problems=$((problems + 1))
fi
if read -r line; then
    echo "stdin is not empty: $line" >&2
    problems=$((problems + 1))
fi
if ! touch "$TMPDIR/probe.$$" || ! rm "$TMPDIR/probe.$$"; then
    echo "TMPDIR cannot be written" >&2
    problems=$((problems + 1))
fi

echo "{ \"shortResult\": \"$problems problems found\" }"
[ "$problems" -eq 0 ]
