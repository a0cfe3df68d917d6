/* Counts what a process does to the files below one folder, and lets the n-th of these operations fail or end it.

   cc -shared -fPIC -o crash_points.so crash_points.c -ldl;  LD_PRELOAD=crash_points.so CRASH_ROOT=/folder python ...
   From Python: ctypes.CDLL("crash_points.so").arm(n, mode) with mode 0 SIGKILL, or else the errno to fail with. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long count, target = -1;
static int mode;

void arm(long n, int how) { count = 0; target = n; mode = how; }
long operations(void) { return count; }

static int below(const char *path) {
    const char *root = getenv("CRASH_ROOT");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

static int below_fd(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static int below_at(int dirfd, const char *path) {
    return path[0] == '/' || dirfd == AT_FDCWD ? below(path) : below_fd(dirfd);
}

/* 1 if the operation has to fail; errno is set. */
static int point(void) {
    if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) != target) return 0;
    if (mode == 0) kill(getpid(), SIGKILL);
    errno = mode;
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opening(const char *path, int dirfd, int flags) {
    return (flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)) && below_at(dirfd, path) && point();
}

#define OPEN(name)                                                    \
    int name(const char *path, int flags, ...) {                      \
        va_list list; va_start(list, flags);                          \
        mode_t bits = va_arg(list, mode_t); va_end(list);             \
        if (opening(path, AT_FDCWD, flags)) return -1;                \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, bits); \
    }
#define OPENAT(name)                                                  \
    int name(int dirfd, const char *path, int flags, ...) {           \
        va_list list; va_start(list, flags);                          \
        mode_t bits = va_arg(list, mode_t); va_end(list);             \
        if (opening(path, dirfd, flags)) return -1;                   \
        return ((int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name))(dirfd, path, flags, bits); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
    if (below_fd(fd) && point()) return -1;
    return NEXT(write)(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    if (below_fd(fd) && point()) return -1;
    return NEXT(writev)(fd, parts, number);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    if (below_fd(fd) && point()) return -1;
    return NEXT(pwrite64)(fd, data, size, offset);
}
int ftruncate64(int fd, off64_t size) {
    if (below_fd(fd) && point()) return -1;
    return NEXT(ftruncate64)(fd, size);
}
int fsync(int fd) {
    if (below_fd(fd) && point()) return -1;
    return NEXT(fsync)(fd);
}
int rename(const char *from, const char *to) {
    if (below(from) && point()) return -1;
    return NEXT(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    if (below_at(a, from) && point()) return -1;
    return NEXT(renameat)(a, from, b, to);
}
int mkdir(const char *path, mode_t bits) {
    if (below(path) && point()) return -1;
    return NEXT(mkdir)(path, bits);
}
int rmdir(const char *path) {
    if (below(path) && point()) return -1;
    return NEXT(rmdir)(path);
}
int unlink(const char *path) {
    if (below(path) && point()) return -1;
    return NEXT(unlink)(path);
}
int unlinkat(int dirfd, const char *path, int flags) {
    if (below_at(dirfd, path) && point()) return -1;
    return NEXT(unlinkat)(dirfd, path, flags);
}
