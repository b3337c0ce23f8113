#!/usr/bin/env bash
# Builds the project's Dockerfile on the Arch-like base image and uses it as a user would: a copy of the repository is mounted
# at /workspace, since what root makes there is root's. No container has a network: the copy holds the crates as well.
# Needs what make-base.sh needs, and git and cargo. KEEP=1 keeps the copy.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=proving-ground-archlike

step() {
    printf '\n--- %s (after %s s)\n' "$*" "$SECONDS"
    "$@"
}

step tests/archlike/make-base.sh

# --- A copy of the repository: its history, its files as they are now, and its crates ----------------------------------------
copy=$(mktemp -d)
if [[ -z ${KEEP:-} ]]; then
    trap 'rm -rf "$copy"' EXIT
fi
git clone --quiet . "$copy/workspace"
git ls-files -z --cached --others --exclude-standard --deduplicate | tar --null --ignore-failed-read -T - -cf - |
    tar -xf - -C "$copy/workspace"
cd "$copy/workspace"
mkdir -p .cargo
step cargo vendor --quiet --locked vendor
cat >.cargo/config.toml <<'END'
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "vendor"
[net]
offline = true
END
printf '/vendor\n/.cargo\n' >>.git/info/exclude

# --- The image, and container-runner in it as the README says ----------------------------------------------------------------
step docker build --force-rm --network none --build-arg "BASE_IMAGE=$image:base" --tag "$image:runner" .
# What these builds leave without a name. They have their label from the base.
docker image prune --force --filter label=proving-ground-archlike
run=(docker run --rm --network none --volume "$PWD:/workspace")
step "${run[@]}" "$image:runner" doctor

# All stages, on the repository's own suites: they work on small roots, nothing is to be installed.
step "${run[@]}" "$image:runner"
step grep -q '"distro":"arch"' .proof/summary.json

# All stages, on the container's own /usr/bin: `deps` has to install what is missing, with the real pacman.
archlike=("${run[@]}" --env SUITES_DIR=tests/archlike/suites)
step "${archlike[@]}" "$image:runner"
step grep -q '"counts":{"pass":4,"fail":0,"running":0,"interrupted":0}' .proof/summary.json
step grep -q '"isolation":"container"' .proof/summary.json
# Stage by stage, by the wrappers, in one container.
wrappers="bash sh/preflight.sh && bash sh/install_deps.sh && bash sh/build_product.sh && bash sh/run_suites.sh"
step "${archlike[@]}" --entrypoint bash "$image:runner" -c "$wrappers && bash sh/collect_artifacts.sh"
step test -s .proof/proofs.tar.gz

# Manjaro is in scope, too.
os_release=$PWD/tests/archlike/os-release
step "${archlike[@]}" --volume "$os_release/manjaro:/usr/lib/os-release:ro" "$image:runner"
step grep -q '"distro":"manjaro"' .proof/summary.json

# Another distribution is not: every suite has to fail, none may be run. A failure that is wanted is kept out of the log.
printf 'ID=other\n' >"$copy/other"
code=0
"${archlike[@]}" --volume "$copy/other:/usr/lib/os-release:ro" "$image:runner" run-suites >"$copy/log" 2>&1 || code=$?
step test "$code" = 1
step grep -q '"counts":{"pass":0,"fail":4,"running":0,"interrupted":0}' .proof/summary.json
step test ! -e .proof/logs/10-enable-real-applets/execute.stdout.log

# --- The harness in the container: cargo test ---------------------------------------------------------------------------------
step "${run[@]}" --entrypoint cargo "$image:runner" test --locked --test suites

# --- What container-runner itself writes: nothing of the machine's -------------------------------------------------------------
# Every system call of a run in which the suites do change /usr/bin, and pacman installs.
step "${archlike[@]}" --cap-add SYS_PTRACE --entrypoint strace "$image:runner" -f -y -s 300 -o .trace \
    -e trace=%file,%desc,clone,clone3,fork,vfork,execve container-runner all
step python3 tests/archlike/audit.py .trace
# The audit finds what it looks for.
runner=$(sed -n 's/^\([0-9]*\) *execve("[^"]*container-runner.*/\1/p' .trace | head -n 1)
printf '%s unlinkat(5</usr/bin>, "ls", 0) = 0\n' "$runner" >>.trace
code=0
step python3 tests/archlike/audit.py .trace || code=$?
step test "$code" = 1

# --- docker stop: restore runs, the summary is written ---------------------------------------------------------------------------
mkdir -p stopped/10-waits
printf 'isolation: container\n' >stopped/runner.yaml
cat >stopped/10-waits/task.yaml <<'END'
summary: waits to be stopped
execute: |
  touch stopped/begun
  sleep 600
restore: touch stopped/restored
END
container=$(docker run --detach --network none --volume "$PWD:/workspace" --env SUITES_DIR=stopped "$image:runner" run-suites)
step timeout 60 bash -c 'until [[ -e stopped/begun ]]; do sleep 0.1; done'
step docker stop --time 30 "$container"
step test "$(docker inspect --format '{{.State.ExitCode}}' "$container")" = 143
docker rm "$container"
step test -e stopped/restored
step grep -q '"interrupted":true' .proof/summary.json
