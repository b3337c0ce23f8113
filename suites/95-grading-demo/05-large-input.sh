# Four megabytes, built by doubling, in $TMPDIR: right, and within the time limit of the set-up.

large=$(mktemp "$TMPDIR/large.XXXXXX") || exit 2
printf 'lorem ipsum dolor sit amet, consetetur sadipscing elitr, sed no\n' >"$large"
doublings=0
while [ "$doublings" -lt 16 ]; do
    cat "$large" "$large" >"$large.more" && mv "$large.more" "$large" || exit 2
    doublings=$((doublings + 1))
done

said=$(./wordcount "$large")
rm -f "$large"
if [ "$said" != "65536 655360 4194304" ]; then
    echo "expected 65536 lines, 655360 words, 4194304 bytes; wordcount said: $said" >&2
    echo '{ "shortResult": "miscounted" }'
    exit 1
fi
echo '{ "shortResult": "4 MiB counted" }'
