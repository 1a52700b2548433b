/* The wall clock as the kernel has it, moved by the seconds that a mapped file holds; every other clock as it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved_s;

__attribute__((constructor)) static void look(void) {
    const char *path = getenv("TESTKIT_WALL");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        _exit(126);
    void *at = mmap(NULL, sizeof *moved_s, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (at == MAP_FAILED)
        _exit(126);
    moved_s = at;
}

int clock_gettime(clockid_t which, struct timespec *at) {
    if (syscall(SYS_clock_gettime, which, at) != 0)
        return -1;
    if (which == CLOCK_REALTIME && moved_s)
        at->tv_sec += *moved_s;
    return 0;
}
