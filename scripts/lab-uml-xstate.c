/*
 * Lets a user-mode Linux kernel run on a machine whose register state is larger than it knows.
 *
 * The kernel of 2022 keeps 2 696 bytes of extended state per thread and writes as many back. A host with AMX has some
 * 11 000 bytes and refuses a shorter write, so the guest's first process dies. Preloaded, this fills the part that the
 * guest does not know from what the host has, and writes the whole.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

long ptrace(enum __ptrace_request request, ...)
{
	va_list list;
	va_start(list, request);
	pid_t pid = va_arg(list, pid_t);
	void *addr = va_arg(list, void *);
	void *data = va_arg(list, void *);
	va_end(list);

	if (request == PTRACE_SETREGSET && (unsigned long)addr == NT_X86_XSTATE) {
		static __thread unsigned char all[64 * 1024];
		struct iovec whole = { all, sizeof all }, *part = data;

		if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, addr, &whole) == 0 && part->iov_len < whole.iov_len) {
			memcpy(all, part->iov_base, part->iov_len);
			return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, addr, &whole);
		}
	}
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		/* The system call stores the word; the function returns it. */
		long word = 0, failed = syscall(SYS_ptrace, request, pid, addr, &word);

		if (failed < 0)
			return failed;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, request, pid, addr, data);
}
