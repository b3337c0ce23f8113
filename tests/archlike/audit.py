#!/usr/bin/env python3
"""audit.py TRACE: reads `strace -f -y` of a whole run, and fails if container-runner itself wrote where only the product and the
package manager may: below /usr, /etc and the package database. A process is container-runner's own until it executes another
program.

What is wrong goes to standard output, a line each. Exit 1 if there is any, or if the trace cannot be of a run: without
container-runner in it, or without any process of it that wrote to its own folders.
"""
import re
import sys

RUNNER = "container-runner"
GUARDED = ("/usr/", "/etc/", "/var/lib/pacman/", "/var/lib/dpkg/")
OWN = ("/workspace/", "/tmp/", "/var/log/", "/dev/shm/")
CALL = re.compile(r"^(?:\[pid\s+)?(\d+)\]?\s+(\w+)\((.*)$")
RESUMED = re.compile(r"^(?:\[pid\s+)?(\d+)\]?\s+<\.\.\. (\w+) resumed>(.*)$")
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
FOLDER = re.compile(r"^(?:AT_FDCWD|\d+)<([^>]*)>")
CHANGES = {"unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "symlink", "symlinkat", "link",
           "linkat", "chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat", "truncate", "mknod", "mknodat", "utimensat",
           "setxattr", "lsetxattr", "removexattr", "creat"}
OPENS = {"open", "openat", "openat2"}
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")


def paths(arguments):
    """-> the absolute paths that a call names"""
    found, folder = [], "/"
    for part in re.split(r", (?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", arguments):
        inside = FOLDER.match(part)
        text = TEXT.search(part)
        if inside:
            folder = inside.group(1)
        elif text:
            path = text.group(1)
            found.append(path if path.startswith("/") else folder.rstrip("/") + "/" + path)
    return found


def main():
    image, waiting, wrong, own, runners = {}, {}, [], 0, set()
    with open(sys.argv[1], errors="replace") as trace:
        for line in trace:
            line = line.rstrip("\n")
            resumed = RESUMED.match(line)
            if resumed:
                pid, name = resumed.group(1), resumed.group(2)
                arguments = waiting.pop((pid, name), "") + resumed.group(3)
            else:
                call = CALL.match(line)
                if not call:
                    continue
                pid, name, arguments = call.groups()
                if "<unfinished ...>" in arguments:
                    waiting[pid, name] = arguments.split("<unfinished ...>")[0]
                    # A child may speak before its parent's call is over.
                    continue
            ok = not re.search(r"= -1 E", arguments)
            if name in ("clone", "clone3", "fork", "vfork"):
                child = re.search(r"= (\d+)", arguments)
                if child:
                    image.setdefault(child.group(1), image.get(pid, "?"))
            elif name == "execve" and ok:
                program = TEXT.search(arguments).group(1)
                # By a link in its scratch folder it is called as the product, whose output it copies.
                image[pid] = RUNNER if "/proving-ground." in program else program.rsplit("/", 1)[-1]
            writes = name in CHANGES or name in OPENS and WRITES.search(arguments)
            if image.get(pid) != RUNNER:
                continue
            runners.add(pid)
            if writes and ok:
                named = paths(arguments)
                # What a link says is no path that changes.
                for path in named[-1:] if name.startswith("symlink") else named:
                    own += path.startswith(OWN)
                    if path.startswith(GUARDED):
                        wrong.append(line)
    for line in wrong:
        print(line)
    print(f"{len(runners)} processes of container-runner, {own} changes in its own folders, {len(wrong)} elsewhere")
    return 1 if wrong or not runners or not own else 0


sys.exit(main())
