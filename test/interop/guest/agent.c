/* agent.c - a small command agent inside the guest, on one virtio-serial port (argv[1]).
 *
 * Guest to host, when the port is opened:      READY <uptime seconds>\n
 * Host to guest, one request at a time:        EXEC <len>\n<len bytes of shell script>
 * Guest to host, when the script has ended:    OK <status> <len>\n<len bytes of its output, both streams>
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int port;

static void put_bytes(const char *b, size_t n)
{
	while (n) {
		ssize_t r = write(port, b, n);
		if (r < 0) {
			if (errno != EINTR && errno != EAGAIN) { perror("agent: write"); return; }
			usleep(1000);
			continue;
		}
		b += r; n -= r;
	}
}
static int get_byte(void)
{
	static char buffer[65536];
	static size_t at, end;
	while (at == end) {
		ssize_t r = read(port, buffer, sizeof buffer);
		if (r > 0) { at = 0; end = r; break; }
		/* Nobody is connected: read returns 0. */
		struct pollfd p = { .fd = port, .events = POLLIN };
		poll(&p, 1, 50);
		if (r == 0) usleep(10000);
	}
	return (unsigned char)buffer[at++];
}
static void get_line(char *line, int max)
{
	int n = 0, c;
	while ((c = get_byte()) != '\n')
		if (n < max - 1) line[n++] = c;
	line[n] = 0;
}
static char *get_bytes(size_t n)
{
	char *b = malloc(n + 1);
	if (!b) abort();
	for (size_t i = 0; i < n; i++) b[i] = get_byte();
	b[n] = 0;
	return b;
}
static void reply(int status, const char *b, size_t n)
{
	char head[64];
	put_bytes(head, snprintf(head, sizeof head, "OK %d %zu\n", status, n));
	put_bytes(b, n);
}
static void reply_file(int status, const char *path)
{
	int f = open(path, O_RDONLY);
	struct stat st;
	char *b;
	size_t n = 0;
	ssize_t r;
	if (f < 0 || fstat(f, &st) || !(b = malloc(st.st_size + 1))) { reply(errno, "", 0); return; }
	while (n < (size_t)st.st_size && (r = read(f, b + n, st.st_size - n)) > 0) n += r;
	close(f);
	reply(status, b, n);
	free(b);
}
static void run(const char *script)
{
	static unsigned serial;
	char path[64];
	int status = 0;
	snprintf(path, sizeof path, "/tmp/agent.%u", serial++);
	int out = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0644);
	pid_t child = fork();
	if (!child) {
		int nothing = open("/dev/null", O_RDONLY);
		dup2(nothing, 0); dup2(out, 1); dup2(out, 2);
		close(port); close(out); close(nothing);
		setsid();
		execl("/bin/sh", "sh", "-c", script, (char *)0);
		_exit(127);
	}
	while (waitpid(child, &status, 0) != child && errno == EINTR) ;
	close(out);
	reply_file(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), path);
	unlink(path);
	while (waitpid(-1, &status, WNOHANG) > 0) ;
}
int main(int argc, char **argv)
{
	char line[256];
	struct timespec t;
	size_t n;
	if (argc < 2 || (port = open(argv[1], O_RDWR)) < 0) { perror("agent: port"); return 1; }
	clock_gettime(CLOCK_BOOTTIME, &t);
	n = snprintf(line, sizeof line, "READY %ld.%02ld\n", (long)t.tv_sec, t.tv_nsec / 10000000);
	put_bytes(line, n);
	for (;;) {
		get_line(line, sizeof line);
		if (sscanf(line, "EXEC %zu", &n) == 1) {
			char *script = get_bytes(n);
			run(script);
			free(script);
		} else if (*line) {
			reply(EINVAL, "", 0);
		}
	}
}
