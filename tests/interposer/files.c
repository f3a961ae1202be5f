/* Stands between a program and the system, by LD_PRELOAD: tells what the program does to the files below WATCHED_ROOT, in order, and lets
 * calls fail as a full or failing disk does. Only so it is seen what a library really syncs.
 *
 * RECORD_TO: where it is told. One line each, the bytes of a write behind its line:
 *     create PATH | write PATH OFFSET LENGTH | truncate PATH LENGTH | sync PATH | rename FROM TO | remove PATH
 * FAULT_FROM: a file that holds the number of an error while calls shall fail: EIO one sync (the next would succeed again, as it does
 * on Linux), ENOSPC writes, of which a part succeeds first, EROFS all that changes anything. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* A full disk takes half of a write, and half of the rest, down to this. */
#define FULL_BYTES 512

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static const char *root, *fault_from;
static int record = -1;

__attribute__((constructor)) static void begin(void) {
    root = getenv("WATCHED_ROOT");
    fault_from = getenv("FAULT_FROM");
    const char *record_to = getenv("RECORD_TO");
    if (record_to) record = syscall(SYS_openat, AT_FDCWD, record_to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The path below the root, or null. */
static const char *below(const char *path) {
    size_t length = root ? strlen(root) : 0;
    if (length == 0 || strncmp(path, root, length) != 0) return NULL;
    if (path[length] == 0) return ".";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *below_of(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return below(path);
}

static void put(const char *bytes, size_t length) {
    while (record >= 0 && length > 0) {
        ssize_t written = syscall(SYS_write, record, bytes, length);
        if (written <= 0) abort();
        bytes += written;
        length -= written;
    }
}

static void tell(const char *format, ...) {
    char line[2 * PATH_MAX + 64];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    put(line, length);
}

/* The error of the fault that stands, or 0. */
static int fault(void) {
    char text[16] = {0};
    if (!fault_from) return 0;
    int fd = syscall(SYS_openat, AT_FDCWD, fault_from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (syscall(SYS_read, fd, text, sizeof text - 1) < 0) text[0] = 0;
    syscall(SYS_close, fd);
    return atoi(text);
}

static long failed(int error) {
    errno = error;
    return -1;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    const char *name = below_of(fd, path);
    if (!name) return syscall(SYS_writev, fd, parts, count);
    pthread_mutex_lock(&one_at_a_time);
    ssize_t written;
    int error = fault();
    if (error == EROFS || (error == ENOSPC && parts[0].iov_len < FULL_BYTES)) {
        written = failed(error);
    } else if (error == ENOSPC) {
        written = syscall(SYS_write, fd, parts[0].iov_base, parts[0].iov_len / 2);
    } else {
        written = syscall(SYS_writev, fd, parts, count);
    }
    if (written > 0) {
        long end = syscall(SYS_lseek, fd, 0L, SEEK_CUR);
        tell("write %s %ld %zd\n", name, end - written, written);
        size_t left = written;
        for (int part = 0; part < count && left > 0; part++) {
            size_t length = parts[part].iov_len < left ? parts[part].iov_len : left;
            put(parts[part].iov_base, length);
            left -= length;
        }
    }
    int kept = errno;
    pthread_mutex_unlock(&one_at_a_time);
    errno = kept;
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    return writev(fd, &part, 1);
}

static ssize_t written_at(int fd, const void *bytes, size_t length, off_t offset) {
    char path[PATH_MAX];
    const char *name = below_of(fd, path);
    if (!name) return syscall(SYS_pwrite64, fd, bytes, length, offset);
    pthread_mutex_lock(&one_at_a_time);
    ssize_t written;
    int error = fault();
    if (error == EROFS || (error == ENOSPC && length < FULL_BYTES)) {
        written = failed(error);
    } else {
        written = syscall(SYS_pwrite64, fd, bytes, error == ENOSPC ? length / 2 : length, offset);
    }
    if (written > 0) {
        tell("write %s %ld %zd\n", name, (long)offset, written);
        put(bytes, written);
    }
    int kept = errno;
    pthread_mutex_unlock(&one_at_a_time);
    errno = kept;
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return written_at(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return written_at(fd, bytes, length, offset); }

static int synced(int fd, long call) {
    char path[PATH_MAX];
    const char *name = below_of(fd, path);
    if (!name) return syscall(call, fd);
    pthread_mutex_lock(&one_at_a_time);
    int result;
    if (fault() == EIO) {
        syscall(SYS_unlinkat, AT_FDCWD, fault_from, 0);
        result = failed(EIO);
    } else {
        result = syscall(call, fd);
        if (result == 0) tell("sync %s\n", name);
    }
    int kept = errno;
    pthread_mutex_unlock(&one_at_a_time);
    errno = kept;
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int truncated(int fd, off_t length) {
    char path[PATH_MAX];
    const char *name = below_of(fd, path);
    if (name && fault() == EROFS) return failed(EROFS);
    pthread_mutex_lock(&one_at_a_time);
    int result = syscall(SYS_ftruncate, fd, length);
    if (name && result == 0) tell("truncate %s %ld\n", name, (long)length);
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

int ftruncate(int fd, off_t length) { return truncated(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncated(fd, length); }

static int opened(const char *path, int flags, mode_t mode) {
    const char *name = below(path);
    if (!name) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if ((flags & O_ACCMODE) != O_RDONLY && fault() == EROFS) return failed(EROFS);
    pthread_mutex_lock(&one_at_a_time);
    int existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && !existed) tell("create %s\n", name);
    if (fd >= 0 && existed && (flags & O_TRUNC)) tell("truncate %s 0\n", name);
    int kept = errno;
    pthread_mutex_unlock(&one_at_a_time);
    errno = kept;
    return fd;
}

static mode_t mode_of(int flags, va_list arguments) { return flags & O_CREAT ? va_arg(arguments, mode_t) : 0; }

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return opened(path, flags, mode);
}

int rename(const char *from, const char *to) {
    const char *name_from = below(from), *name_to = below(to);
    if (name_from && fault() == EROFS) return failed(EROFS);
    pthread_mutex_lock(&one_at_a_time);
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (name_from && name_to && result == 0) tell("rename %s %s\n", name_from, name_to);
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

int unlink(const char *path) {
    const char *name = below(path);
    if (name && fault() == EROFS) return failed(EROFS);
    pthread_mutex_lock(&one_at_a_time);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (name && result == 0) tell("remove %s\n", name);
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}
