/*
 * The bare cost, inside a guest, of what envd does for a client. Built static by the benchmark.
 *
 *   bare spawn PROGRAM [ARGUMENT...]   for each byte of stdin: posix_spawn, wait, print the time
 *   bare pty PROGRAM [ARGUMENT...]     for each byte of stdin: forkpty, print the time to the first
 *                                      byte of output, kill
 *   bare write FILE BYTES              print the time of writing a file of so many zeros
 *   bare read FILE                     print the time of reading it
 *   bare serve PORT                    the least HTTP server: GET /BYTES sends so many zeros,
 *                                      POST reads a body of any length; nothing else is understood
 *
 * Times are in microseconds, one to a line.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE (256 * 1024)

extern char **environ;
static char piece[PIECE];

static void fail(const char *doing)
{
    perror(doing);
    exit(1);
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void report(long long begun)
{
    printf("%lld\n", now() - begun);
    fflush(stdout);
}

static void wait_for(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0)
        if (errno != EINTR)
            fail("waitpid");
}

static void spawn_once(char **argv)
{
    long long begun = now();
    pid_t pid;
    int error = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
    if (error) {
        errno = error;
        fail(argv[0]);
    }
    wait_for(pid);
    report(begun);
}

static void pty_once(char **argv)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    char first;
    int terminal;
    long long begun = now();
    pid_t pid = forkpty(&terminal, NULL, NULL, &size);
    if (pid < 0)
        fail("forkpty");
    if (pid == 0) {
        execv(argv[0], argv);
        _exit(127);
    }
    if (read(terminal, &first, 1) != 1)
        fail("read of the terminal");
    report(begun);
    kill(pid, SIGKILL);
    wait_for(pid);
    close(terminal);
}

static void for_each_byte(void (*once)(char **), char **argv)
{
    char asked;
    while (read(0, &asked, 1) == 1)
        once(argv);
}

static void send_all(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t sent = write(fd, data, length);
        if (sent < 0)
            fail("write");
        data += sent;
        length -= sent;
    }
}

static void send_zeros(int fd, long long left)
{
    for (; left > 0; left -= PIECE)
        send_all(fd, piece, left < PIECE ? left : PIECE);
}

static void write_file(const char *path, long long size)
{
    long long begun = now();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        fail(path);
    send_zeros(fd, size);
    close(fd);
    report(begun);
}

static void read_file(const char *path)
{
    long long begun = now();
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        fail(path);
    while (read(fd, piece, PIECE) > 0)
        ;
    close(fd);
    report(begun);
}

/* The head of a request, and what of its body came with it; 0 at the end of the connection. */
static size_t read_head(int fd, char *head, size_t room, char **body)
{
    size_t have = 0;
    while (have < room - 1) {
        ssize_t got = read(fd, head + have, room - 1 - have);
        if (got <= 0)
            return 0;
        have += got;
        head[have] = 0;
        if ((*body = strstr(head, "\r\n\r\n"))) {
            *body += 4;
            return have;
        }
    }
    return 0;
}

static void answer(int fd, long long length)
{
    char head[128];
    int size = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n\r\n", length);
    send_all(fd, head, size);
    send_zeros(fd, length);
}

static void take_body(int fd, const char *head, size_t have)
{
    const char *field = strcasestr(head, "\r\ncontent-length:");
    long long left = field ? atoll(field + strlen("\r\ncontent-length:")) - (long long)have : 0;
    while (left > 0) {
        ssize_t got = read(fd, piece, PIECE);
        if (got <= 0)
            return;
        left -= got;
    }
}

static void converse(int fd)
{
    char head[16384], *body;
    size_t have;
    while ((have = read_head(fd, head, sizeof head, &body))) {
        if (strncmp(head, "GET /", 5) == 0) {
            answer(fd, atoll(head + 5));
        } else {
            take_body(fd, head, have - (body - head));
            memset(piece, 0, sizeof piece);
            answer(fd, 0);
        }
    }
}

static void serve(int port)
{
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16))
        fail("listen");
    printf("ready\n");
    fflush(stdout);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (fork() == 0) {
            close(listener);
            converse(fd);
            _exit(0);
        }
        close(fd);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";
    if (strcmp(mode, "spawn") == 0)
        for_each_byte(spawn_once, argv + 2);
    else if (strcmp(mode, "pty") == 0)
        for_each_byte(pty_once, argv + 2);
    else if (strcmp(mode, "write") == 0 && argc > 3)
        write_file(argv[2], atoll(argv[3]));
    else if (strcmp(mode, "read") == 0)
        read_file(argv[2]);
    else if (strcmp(mode, "serve") == 0)
        serve(atoi(argv[2]));
    else {
        fprintf(stderr, "usage: see the head of bare.c\n");
        return 2;
    }
    return 0;
}
