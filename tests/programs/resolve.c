/* Resolves NAME with the C library's resolver: built with musl, that of Alpine. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **arguments)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = count == 2 ? getaddrinfo(arguments[1], "80", &hints, &found) : EAI_NONAME;
    if (error) {
        puts(gai_strerror(error));
        return 1;
    }
    for (; found; found = found->ai_next) {
        char host[64], port[8];
        getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
        puts(host);
    }
    return 0;
}
