# Builds a small root in $SWAP_ROOT: every applet that swap knows, each with an original and a provider. All of them are
# tiny scripts that say who they are. To be sourced by a `prepare` block, after SWAP_ROOT is set.

mkdir -p "$SWAP_ROOT"/usr/bin "$SWAP_ROOT"/usr/lib/rust-coreutils "$SWAP_ROOT"/usr/lib/rust-findutils
while read -r applet; do
    printf '#!/bin/sh\necho "original %s"\n' "$applet" >"$SWAP_ROOT/usr/bin/$applet"
    printf '#!/bin/sh\necho "rust %s"\n' "$applet" >"$SWAP_ROOT/usr/lib/rust-coreutils/$applet"
done <"$SUITE_DIR/../lib/applets.txt"
for applet in find xargs; do
    printf '#!/bin/sh\necho "original %s"\n' "$applet" >"$SWAP_ROOT/usr/bin/$applet"
    printf '#!/bin/sh\necho "rust %s"\n' "$applet" >"$SWAP_ROOT/usr/lib/rust-findutils/$applet"
done
chmod 755 "$SWAP_ROOT"/usr/bin/* "$SWAP_ROOT"/usr/lib/*/*
