/* Attempts that a sandbox is to refuse, each in a process of its own. Where there is no sandbox they would succeed, and harm: so it does
 * nothing there but what `--harmless` vouches for. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static const char *argument;

static int answer(long result) { return result < 0 ? errno : 0; }
static int closed(int fd) { return answer(fd); }

/* Namespaces. */
static int try_unshare(int flags) { return answer(unshare(flags)); }
static int unshare_user(void) { return try_unshare(CLONE_NEWUSER); }
static int unshare_mounts(void) { return try_unshare(CLONE_NEWNS); }
static int unshare_user_and_mounts(void) { return try_unshare(CLONE_NEWUSER | CLONE_NEWNS); }
static int unshare_network(void) { return try_unshare(CLONE_NEWUSER | CLONE_NEWNET); }

static int joined(long pid) {
    if (pid == 0) _exit(0);
    int refused = answer(pid);
    if (pid > 0) waitpid((pid_t)pid, NULL, 0);
    return refused;
}
static int try_clone(unsigned long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    return joined(pid);
}
static int clone_user(void) { return try_clone(CLONE_NEWUSER); }
static int clone_mounts(void) { return try_clone(CLONE_NEWNS); }
static int clone_processes(void) { return try_clone(CLONE_NEWPID); }
static int clone_network(void) { return try_clone(CLONE_NEWNET); }
static int clone_ipc(void) { return try_clone(CLONE_NEWIPC); }
static int clone_names(void) { return try_clone(CLONE_NEWUTS); }
static int clone_cgroup(void) { return try_clone(CLONE_NEWCGROUP); }
/* The upper half of the register is not the flags'. */
static int clone_user_high(void) { return try_clone(CLONE_NEWUSER | 0x100000000UL); }
static int clone3_user(void) {
    uint64_t args[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    return joined(syscall(435, args, sizeof args));
}
static int setns_own(void) { return answer(setns(open("/proc/self/ns/uts", O_RDONLY), 0)); }
static int setns_of_init(void) {
    int fd = open("/proc/1/ns/user", O_RDONLY);
    return fd < 0 ? errno : answer(setns(fd, 0));
}

/* What there is to see. */
static int mount_tmpfs(void) { return answer(mount("none", "/tmp", "tmpfs", 0, "")); }
static int mount_proc(void) { return answer(mount("proc", "/proc", "proc", 0, "")); }
static int mount_bind(void) { return answer(mount("/etc", "/tmp", "", MS_BIND, "")); }
static int remount_writable(void) { return answer(mount("", "/usr", "", MS_REMOUNT | MS_BIND, "")); }
static int remount_root(void) { return answer(mount("", "/", "", MS_REMOUNT | MS_BIND, "")); }
static int unmount_tmp(void) { return answer(umount2("/tmp", MNT_DETACH)); }
static int unmount_work_dir(void) { return answer(umount2(".", MNT_DETACH)); }
static int pivot(void) { return answer(syscall(SYS_pivot_root, ".", ".")); }
static int change_root(void) { return answer(chroot(".")); }
static int fs_open(void) { return answer(syscall(430, "tmpfs", 0)); }
static int open_mounts(void) { return answer(syscall(428, AT_FDCWD, "/usr", 1)); }
static int move_mounts(void) { return answer(syscall(429, AT_FDCWD, "/usr", AT_FDCWD, "/tmp", 0)); }
static int set_mount_writable(void) {
    uint64_t attributes[4] = {0, 1, 0, 0};
    return answer(syscall(442, AT_FDCWD, "/usr", 0, attributes, sizeof attributes));
}
static int open_by_handle(void) {
    struct { struct file_handle handle; char bytes[128]; } it = {.handle = {.handle_bytes = 128}};
    int mount_id;
    if (name_to_handle_at(AT_FDCWD, "/usr", &it.handle, &mount_id, 0) < 0) it.handle.handle_bytes = 8;
    return answer(open_by_handle_at(open("/usr", O_RDONLY), &it.handle, O_RDONLY));
}

/* Devices. */
static int try_node(mode_t kind, dev_t device) {
    unlink("node");
    return answer(mknod("node", kind | 0666, device));
}
static int node_of_memory(void) { return try_node(S_IFCHR, 0x101); }
static int node_of_disk(void) { return try_node(S_IFBLK, 0xfe00); }
static int node_of_null(void) { return try_node(S_IFCHR, 0x103); }

/* The kernel. */
static int kernel_log(void) { return answer(klogctl(3, (char[64]){0}, 64)); }
static int reboot_off(void) { return answer(reboot(RB_DISABLE_CAD)); }
static int swap_on(void) { return answer(swapon("/tmp/x", 0)); }
static int account(void) { return answer(acct("/tmp/x")); }
static int set_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return answer(clock_settime(CLOCK_REALTIME, &now));
}
static int set_name(void) {
    char name[65] = {0};
    gethostname(name, sizeof name - 1);
    return answer(sethostname(name, strlen(name)));
}
static int load_module(void) { return answer(syscall(SYS_init_module, "", 0, "")); }
static int load_kernel(void) { return answer(syscall(SYS_kexec_load, 0, 0, 0, 0)); }
static int use_bpf(void) { return answer(syscall(SYS_bpf, 0, (char[128]){0}, 128)); }
static int use_perf(void) {
    uint64_t attributes[14] = {1 | 112ULL << 32, 1, 0, 0, 0, 0x60};
    return answer(syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0));
}
static int use_userfaultfd(void) { return answer(syscall(SYS_userfaultfd, 1)); }
static int use_io_uring(void) { return answer(syscall(425, 8, (char[256]){0})); }
static int use_fanotify(void) { return answer(syscall(SYS_fanotify_init, 0, 0)); }
static int keep_key(void) { return answer(syscall(SYS_add_key, "user", "pg", "x", 1, -4)); }
static int read_keyring(void) { return answer(syscall(SYS_keyctl, 0, -4, 1)); }
static int request_key(void) { return answer(syscall(SYS_request_key, "user", "pg", 0, -4)); }
static int open_ports(void) {
#ifdef SYS_ioperm
    return answer(syscall(SYS_ioperm, 0x80, 1, 1));
#else
    return EPERM;
#endif
}

/* Sockets that no network namespace separates, or that see what others send. */
static int try_socket(int family, int type, int protocol) { return closed(socket(family, type, protocol)); }
static int socket_vsock(void) { return try_socket(AF_VSOCK, SOCK_STREAM, 0); }
static int socket_packet(void) { return try_socket(AF_PACKET, SOCK_RAW, 0); }
static int socket_alg(void) { return try_socket(AF_ALG, SOCK_SEQPACKET, 0); }
static int socket_raw(void) { return try_socket(AF_INET, SOCK_RAW, 1); }
static int socket_bluetooth(void) { return try_socket(AF_BLUETOOTH, SOCK_RAW, 0); }
static int socket_tipc(void) { return try_socket(AF_TIPC, SOCK_RDM, 0); }

/* Other ABIs. */
static int x32_getpid(void) {
#ifdef __x86_64__
    return answer(syscall(0x40000000 | SYS_getpid));
#else
    return ENOSYS;
#endif
}
static int x32_mount(void) {
#ifdef __x86_64__
    return answer(syscall(0x40000000 | SYS_mount, "none", "/tmp", "tmpfs", 0, ""));
#else
    return ENOSYS;
#endif
}
static int i386_getpid(void) {
#ifdef __x86_64__
    long result = 20;
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return result > 0 ? 0 : (int)-result;
#else
    return raise(SIGSYS);
#endif
}

/* Who it is. */
static int become_root(void) { return answer(setuid(0)); }
static int become_roots_group(void) { return answer(setgid(0)); }
static int become_another(void) { return answer(setresuid(1234, 1234, 1234)); }
static int set_groups(void) { return answer(syscall(SYS_setgroups, 1, (gid_t[]){0})); }
static int gain_rights(void) {
    uint32_t header[2] = {0x20080522, 0}, rights[6] = {~0U, ~0U, 0, ~0U, ~0U, 0};
    return answer(syscall(SYS_capset, header, rights));
}
static int keep_rights(void) { return answer(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0)); }
static int become_new_privileged(void) { return answer(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)); }
static int lock_rights_open(void) { return answer(prctl(PR_SET_SECUREBITS, 0, 0, 0, 0)); }
static int raise_open_files(void) { return answer(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 19, 1 << 19})); }
static int raise_processes(void) {
    return answer(setrlimit(RLIMIT_NPROC, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
}
static int raise_file_size(void) {
    return answer(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
}
static int run_first(void) { return answer(sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){50})); }
static int be_less_nice(void) { return answer(setpriority(PRIO_PROCESS, 0, -10)); }

/* The first process, which is the runner's, and whom the argument names. */
static pid_t target(void) { return argument ? atoi(argument) : 1; }
static int trace(void) { return answer(ptrace(PTRACE_SEIZE, target(), 0, 0)); }
static int attach(void) { return answer(ptrace(PTRACE_ATTACH, target(), 0, 0)); }
static int read_memory(void) {
    char bytes[8];
    /* Something is mapped there in every program that is not position independent; the right is looked at first. */
    struct iovec local = {bytes, 8}, remote = {(void *)0x400000, 8};
    long got = process_vm_readv(target(), &local, 1, &remote, 1, 0);
    return got < 0 && errno == EFAULT ? 0 : answer(got);
}
static int write_memory(void) {
    char bytes[8] = {0};
    struct iovec local = {bytes, 8}, remote = {(void *)0x400000, 8};
    long put = process_vm_writev(target(), &local, 1, &remote, 1, 0);
    return put < 0 && errno == EFAULT ? 0 : answer(put);
}
static int take_descriptor(void) {
    int fd = (int)syscall(434, target(), 0);
    return fd < 0 ? errno : answer(syscall(438, fd, 3, 0));
}
static int try_open(const char *name, int flags) {
    char path[128];
    snprintf(path, sizeof path, "/proc/%d/%s", target(), name);
    return closed(open(path, flags));
}
static int open_memory(void) { return try_open("mem", O_RDONLY); }
static int open_memory_to_write(void) { return try_open("mem", O_RDWR); }
static int open_environment(void) { return try_open("environ", O_RDONLY); }
static int open_root(void) { return try_open("root", O_RDONLY); }
static int open_cwd(void) { return try_open("cwd", O_RDONLY); }
static int open_program(void) { return try_open("exe", O_RDONLY); }
static int open_descriptors(void) { return try_open("fd", O_RDONLY | O_DIRECTORY); }
static int open_maps(void) {
    int fd;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", target());
    return (fd = open(path, O_RDONLY)) < 0 ? errno : answer(read(fd, path, 1) == 1 ? 0 : -1);
}
static int open_map_files(void) { return try_open("map_files", O_RDONLY | O_DIRECTORY); }
static int open_uid_map(void) {
    int fd = open("/proc/self/uid_map", O_WRONLY);
    return fd < 0 ? errno : answer(write(fd, "0 0 1", 5));
}
static int protect_from_oom(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    return fd < 0 ? errno : answer(write(fd, "-1000", 5));
}
static int push_to_terminal(void) {
    int fd = open("/dev/tty", O_RDWR);
    return fd < 0 ? errno : answer(ioctl(fd, TIOCSTI, "x"));
}
static int link_passwd(void) { return answer(link("/etc/passwd", "linked")); }
static int link_through_proc(void) {
    int fd = open("/etc/passwd", O_RDONLY);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return answer(linkat(AT_FDCWD, path, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
}
static int reopen_to_write(void) {
    int fd = open("/etc/passwd", O_RDONLY);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return closed(open(path, O_RDWR));
}
static int chmod_passwd(void) { return answer(chmod("/etc/passwd", 0666)); }
static int mark_passwd(void) { return answer(setxattr("/etc/passwd", "user.x", "x", 1, 0)); }
static int map_passwd_shared(void) {
    void *at = mmap(0, 1, PROT_READ | PROT_WRITE, MAP_SHARED, open("/etc/passwd", O_RDONLY), 0);
    return at == MAP_FAILED ? errno : 0;
}
/* Overlays read these names; nobody else may write them. */
static int mark_opaque(void) {
    mkdir("marked", 0755);
    return answer(setxattr("marked", "user.overlay.opaque", "y", 1, 0));
}
static int mark_redirect(void) {
    mkdir("marked", 0755);
    return answer(setxattr("marked", "user.overlay.redirect", "/../../etc", 10, 0));
}

/* Sockets of the machine; the argument is a port, a name or a path. */
static int connect_to(int family, const char *address) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argument))};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = four.sin_port};
    inet_pton(AF_INET, address, &four.sin_addr);
    inet_pton(AF_INET6, address, &six.sin6_addr);
    int fd = socket(family, SOCK_STREAM, 0);
    return answer(family == AF_INET ? connect(fd, (void *)&four, sizeof four) : connect(fd, (void *)&six, sizeof six));
}
static int connect_loopback(void) { return connect_to(AF_INET, "127.0.0.1"); }
static int connect_loopback6(void) { return connect_to(AF_INET6, "::1"); }
static int connect_elsewhere(void) { return connect_to(AF_INET, "192.0.2.1"); }
static int connect_unix(size_t first) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + first, argument, sizeof address.sun_path - first - 1);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + first + strlen(argument));
    return answer(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, length));
}
static int connect_path(void) { return connect_unix(0); }
static int connect_abstract(void) { return connect_unix(1); }

#define PROBE(name) {#name, name}
static const struct { const char *name; int (*attempt)(void); } PROBES[] = {
    PROBE(unshare_user), PROBE(unshare_mounts), PROBE(unshare_user_and_mounts), PROBE(unshare_network),
    PROBE(clone_user), PROBE(clone_mounts), PROBE(clone_processes), PROBE(clone_network), PROBE(clone_ipc),
    PROBE(clone_names), PROBE(clone_cgroup), PROBE(clone_user_high), PROBE(clone3_user), PROBE(setns_own),
    PROBE(setns_of_init), PROBE(mount_tmpfs), PROBE(mount_proc), PROBE(mount_bind), PROBE(remount_writable),
    PROBE(remount_root), PROBE(unmount_tmp), PROBE(unmount_work_dir), PROBE(pivot), PROBE(change_root), PROBE(fs_open),
    PROBE(open_mounts), PROBE(move_mounts), PROBE(set_mount_writable), PROBE(open_by_handle), PROBE(node_of_memory),
    PROBE(node_of_disk), PROBE(node_of_null), PROBE(kernel_log), PROBE(reboot_off), PROBE(swap_on), PROBE(account),
    PROBE(set_clock), PROBE(set_name), PROBE(load_module), PROBE(load_kernel), PROBE(use_bpf), PROBE(use_perf),
    PROBE(use_userfaultfd), PROBE(use_io_uring), PROBE(use_fanotify), PROBE(keep_key), PROBE(read_keyring),
    PROBE(request_key), PROBE(open_ports), PROBE(socket_vsock), PROBE(socket_packet), PROBE(socket_alg),
    PROBE(socket_raw), PROBE(socket_bluetooth), PROBE(socket_tipc), PROBE(x32_getpid), PROBE(x32_mount),
    PROBE(i386_getpid), PROBE(become_root), PROBE(become_roots_group), PROBE(become_another), PROBE(set_groups),
    PROBE(gain_rights), PROBE(keep_rights), PROBE(become_new_privileged), PROBE(lock_rights_open),
    PROBE(raise_open_files), PROBE(raise_processes), PROBE(raise_file_size), PROBE(run_first), PROBE(be_less_nice),
    PROBE(trace), PROBE(attach), PROBE(read_memory), PROBE(write_memory), PROBE(take_descriptor), PROBE(open_memory),
    PROBE(open_memory_to_write), PROBE(open_environment), PROBE(open_root), PROBE(open_cwd), PROBE(open_program),
    PROBE(open_descriptors), PROBE(open_maps), PROBE(open_map_files), PROBE(open_uid_map), PROBE(protect_from_oom),
    PROBE(push_to_terminal), PROBE(link_passwd), PROBE(link_through_proc), PROBE(reopen_to_write),
    PROBE(chmod_passwd), PROBE(mark_passwd), PROBE(map_passwd_shared), PROBE(mark_opaque), PROBE(mark_redirect),
    PROBE(connect_loopback), PROBE(connect_loopback6), PROBE(connect_elsewhere), PROBE(connect_path),
    PROBE(connect_abstract),
};

static void tell(const char *name, int (*attempt)(void)) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        _exit(attempt());
    }
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status))
        printf("%s SIG%s\n", name, sigabbrev_np(WTERMSIG(status)));
    else
        printf("%s %s\n", name, WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "done");
    fflush(stdout);
}

static int is_in_sandbox(void) {
    char name[16] = {0};
    int fd = open("/proc/1/comm", O_RDONLY);
    return read(fd, name, 7) == 7 && strcmp(name, "pg-init") == 0;
}

/* `probe [--harmless] NAME[=ARGUMENT]...`: a line `NAME ANSWER` each. The answer is `done`, the error's name, or the signal. */
int main(int count, char **names) {
    int is_harmless = count > 1 && strcmp(names[1], "--harmless") == 0;
    if (!is_harmless && !is_in_sandbox()) {
        puts("not in a sandbox");
        return 1;
    }
    for (int at = 1 + is_harmless; at < count; at++) {
        char *equals = strchr(names[at], '=');
        argument = equals ? equals + 1 : NULL;
        if (equals) *equals = '\0';
        size_t probe = 0, probes = sizeof PROBES / sizeof *PROBES;
        while (probe < probes && strcmp(PROBES[probe].name, names[at])) probe++;
        if (probe == probes) {
            printf("%s unknown\n", names[at]);
            return 1;
        }
        tell(names[at], PROBES[probe].attempt);
    }
    return 0;
}
