#!/usr/bin/env bash
# The sandbox in containers of the real engine: with its default options it is refused, each remedy that is printed is the next option to
# give, and with those options it holds and a real project passes; as root and as an ordinary user. Then the worker's image, built and used.
# Needs what make-base.sh needs, and cargo.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=proving-ground-debian:base

step() {
    printf '\n--- %s (after %s s)\n' "$*" "$SECONDS"
    "$@"
}

step tests/docker/make-base.sh
# With the features that .ci/run has tested, so that they are there.
step cargo build --locked --all-features --bins
target=$(cargo metadata --locked --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

# --- A project of two scripts, of which the second must not see what the first did -------------------------------------------
work=$(mktemp -d)
worker=proving-ground-debian:worker
trap 'rm -rf "$work"; docker image rm --force "$worker" >/dev/null 2>&1' EXIT
chmod 755 "$work"
cp "$target/debug/container-runner" "$work/"
mkdir -p "$work/project/suites/set"
printf 'isolation: container\nsandbox: true\n' >"$work/project/suites/runner.yaml"
cat >"$work/project/suites/set/test.properties.json" <<'END_OF_MANIFEST'
{"schemaVersion": 1, "timeLimitSeconds": 60,
 "testSuites": [{"script": "a.sh", "tier": "public"}, {"script": "b.sh", "tier": "public"}]}
END_OF_MANIFEST
echo 'echo a >made && ! echo a >/etc/made' >"$work/project/suites/set/a.sh"
echo '[ ! -e made ] && [ ! -e /workspace ]' >"$work/project/suites/set/b.sh"

# --- What is tried in one container: options, user, words for container-runner -----------------------------------------------
# What it says is in $work/log, its exit code in $code.
in_container() {
    local words user
    read -r -a words <<<"$1"
    user=$2
    shift 2
    rm -rf "$work/workspace"
    cp -r "$work/project" "$work/workspace"
    chown -R "$user:$user" "$work/workspace"
    code=0
    timeout 300 docker run --rm --network none --user "$user" --volume "$work/workspace:/workspace" --workdir /workspace \
        --volume "$work/container-runner:/usr/local/bin/container-runner:ro" "${words[@]}" "$image" \
        container-runner "$@" >"$work/log" 2>&1 || code=$?
}

fail() {
    printf '%s; it ended with %s and said:\n' "$1" "$code"
    cat "$work/log"
    exit 1
} >&2

# Doctor names the wall and the option; a run stops before anything is run.
lacks() {
    local options=$1 user=$2 wall=$3 remedy=$4
    printf '[%s] as %s: %s; %s\n' "$options" "$user" "$wall" "$remedy"
    in_container "$options" "$user" doctor
    if [[ $code != 2 ]] || ! grep -F 'NEEDS sandbox: ' "$work/log" | grep -F "$wall" | grep -qF -e "$remedy"; then
        fail 'doctor does not say so'
    fi
    in_container "$options" "$user" run-suites
    if [[ $code != 2 ]] || ! grep -F "$wall" "$work/log" | grep -qF -e "$remedy"; then
        fail 'the run does not say so'
    fi
    if [[ -e $work/workspace/.proof/results ]]; then
        fail 'something was run'
    fi
}

holds() {
    local options=$1 user=$2 summary=$work/workspace/.proof/summary.json
    printf '[%s] as %s: holds\n' "$options" "$user"
    in_container "$options" "$user" doctor
    if [[ $code != 0 ]] || ! grep -qF 'ok    sandbox: holds' "$work/log"; then
        fail 'the sandbox does not hold'
    fi
    in_container "$options" "$user" all
    if [[ $code != 0 ]] || ! grep -qF '"sandbox":true' "$summary" || ! grep -qF '"counts":{"pass":2,"fail":0' "$summary"; then
        fail 'the project does not pass'
    fi
}

# --- From the default options to a sandbox, one remedy after another -----------------------------------------------------------
# Where the engine has AppArmor, that is one more.
security=$(docker info --format '{{.SecurityOptions}}')
[[ $security == *seccomp* ]] || { echo "this engine has no filter for system calls: nothing to try" >&2; exit 1; }
seccomp='--security-opt seccomp=unconfined'
apparmor='--security-opt apparmor=unconfined'
paths='--security-opt systempaths=unconfined'
for user in 0 1000; do
    options=
    wall='a user namespace'
    lacks "$options" "$user" "$wall" "$seccomp"
    # A right that namespaces could do with is not enough: nobody may change his root.
    if [[ $security != *apparmor* ]]; then
        lacks '--cap-add SYS_ADMIN' "$user" 'a root of its own' "$seccomp"
    fi
    options=$seccomp
    if [[ $security == *apparmor* ]]; then
        lacks "$options" "$user" 'a root of its own' "$apparmor"
        options+=" $apparmor"
    fi
    lacks "$options" "$user" 'a /proc of its own' "$paths"
    options+=" $paths"
    holds "$options" "$user"
    holds "$options --security-opt no-new-privileges" "$user"
    holds "$options --read-only --tmpfs /tmp" "$user"
    holds "$options --pids-limit 64 --memory 256m" "$user"
done

# --- Fewer rights ----------------------------------------------------------------------------------------------------------------
lacks "$options --cap-drop ALL" 0 'root lacks CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID' '--cap-add'
holds "$options --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add SETGID --cap-add SETUID" 0
holds "$options --cap-drop ALL" 1000

# --- All rights: what this machine itself does not have, no container can be given ---------------------------------------------
for user in 0 1000; do
    if docker run --rm --network none --privileged --user "$user" "$image" true 2>"$work/log"; then
        holds --privileged "$user"
    elif grep -qF 'unable to apply caps' "$work/log"; then
        echo "NOT CHECKED: --privileged as $user; this machine lacks rights that it gives"
    else
        code=125
        fail 'a privileged container cannot be started'
    fi
done

# --- The worker's image: built as deploy/worker.Dockerfile says, run as deploy/compose.yaml does -----------------------------------
# The base has the packages, so no network is needed.
mkdir -p "$work/image/bin"
# Without what debuggers need, which is most of it.
strip -o "$work/image/bin/chickadee-runner" "$target/debug/chickadee-runner"
step docker build --force-rm --network none --build-arg "BASE_IMAGE=$image" --file deploy/worker.Dockerfile --tag "$worker" "$work/image"
test=image::the_image_does_a_job_behind_its_walls_and_drains_when_it_is_stopped
step env WORKER_IMAGE="$worker" cargo test --locked --all-features --test worker -- --ignored --exact "$test" | tee "$work/log"
# A name that is none's would pass.
grep -qF '1 passed' "$work/log"

# --- Nothing is left -------------------------------------------------------------------------------------------------------------
left=$(docker ps --all --quiet --filter "ancestor=$image")
[[ -z $left ]] || { echo "containers are left: $left" >&2; exit 1; }
printf '\nthe sandbox holds or is refused as promised, and the worker does its job, after %s s\n' "$SECONDS"
