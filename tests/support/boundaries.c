/* Preloaded into a process: counts its system calls that change files below a folder, and strikes at the k-th.

Which, where and how is in the file that the environment variable FAULTS names; all processes share it. See boundaries.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KILL = 1, TEAR = 2, FULL = 3 };  /* before the call; amid a write; no space left on the device */

struct plan {
    int64_t number;   /* of the call that is struck; 0 counts only */
    int64_t counted;
    int64_t kind;
    int64_t armed;
    char call[512];   /* what was struck */
    char folder[2048];
};

static struct plan *plan;

__attribute__((constructor)) static void find_plan(void) {
    const char *name = getenv("FAULTS");
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int file = name ? real_open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *memory = mmap(NULL, sizeof(struct plan), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) plan = memory;
    close(file);
}

/* whether the call is to fail; does not return where it is to kill */
static int strike(const char *call, const char *path, int can_be_full) {
    if (!plan || !plan->armed || !path || strncmp(path, plan->folder, strlen(plan->folder))) return 0;
    if (__sync_add_and_fetch(&plan->counted, 1) != plan->number) return 0;
    snprintf(plan->call, sizeof plan->call, "%s %s", call, path + strlen(plan->folder));
    if (plan->kind == FULL && !can_be_full) return 0;
    if (plan->kind == KILL || (plan->kind == TEAR && strcmp(call, "write"))) {
        kill(getpid(), SIGKILL);
        pause();
    }
    errno = ENOSPC;
    return 1;
}

static const char *path_of(int file, char *path) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = plan && plan->armed ? readlink(name, path, PATH_MAX - 1) : -1;
    if (length < 0) return NULL;
    path[length] = 0;
    return path;
}

#define REAL(name) static typeof(&name) real; if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)

#define WRITE(name, parameters, arguments, torn)                                    \
    ssize_t name parameters {                                                       \
        REAL(name);                                                                 \
        char path[PATH_MAX];                                                        \
        if (strike("write", path_of(file, path), 1)) {                              \
            if (plan->kind != TEAR) return -1;                                      \
            real torn;                                                              \
            kill(getpid(), SIGKILL);                                                \
        }                                                                           \
        return real arguments;                                                      \
    }
WRITE(write, (int file, const void *content, size_t size), (file, content, size), (file, content, size / 2))
WRITE(pwrite, (int file, const void *content, size_t size, off_t at), (file, content, size, at), (file, content, size / 2, at))
WRITE(pwrite64, (int file, const void *content, size_t size, off64_t at), (file, content, size, at), (file, content, size / 2, at))

#define ON_FILE(name, parameters, arguments)                                        \
    int name parameters {                                                           \
        REAL(name);                                                                 \
        char path[PATH_MAX];                                                        \
        return strike(#name, path_of(file, path), 1) ? -1 : real arguments;         \
    }
ON_FILE(fsync, (int file), (file))
ON_FILE(fdatasync, (int file), (file))
ON_FILE(ftruncate, (int file, off_t size), (file, size))
ON_FILE(ftruncate64, (int file, off64_t size), (file, size))

#define ON_PATH(name, parameters, arguments, path, can_be_full)                     \
    int name parameters {                                                           \
        REAL(name);                                                                 \
        return strike(#name, path, can_be_full) ? -1 : real arguments;              \
    }
ON_PATH(rename, (const char *from, const char *to), (from, to), to, 1)
ON_PATH(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), to, 1)
ON_PATH(link, (const char *from, const char *to), (from, to), to, 1)
ON_PATH(linkat, (int a, const char *from, int b, const char *to, int how), (a, from, b, to, how), to, 1)
ON_PATH(unlink, (const char *path), (path), path, 0)
ON_PATH(rmdir, (const char *path), (path), path, 0)
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode), path, 1)
ON_PATH(truncate, (const char *path, off_t size), (path, size), path, 1)

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        REAL(name);                                                                 \
        va_list others;                                                             \
        va_start(others, flags);                                                    \
        int mode = va_arg(others, int);                                             \
        va_end(others);                                                             \
        if (flags & (O_CREAT | O_TRUNC) && strike("open", path, 1)) return -1;      \
        return real(path, flags, mode);                                             \
    }
OPEN(open)
OPEN(open64)
