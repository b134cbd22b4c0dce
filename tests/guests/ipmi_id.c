/* Get Device ID through /dev/ipmi0, by the driver's ioctls, without a C library. Prints "IPMI xx xx ..."; exits
 * with 0 if the completion code is 0. Structures and numbers: Linux UAPI linux/ipmi.h. */

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

enum { SYS_write = 1, SYS_open = 2, SYS_poll = 7, SYS_ioctl = 16, SYS_exit = 60 };
enum { O_RDWR = 2, POLLIN = 1, TIMEOUT_MS = 5000 };
enum { SYSTEM_INTERFACE = 0x0c, BMC_CHANNEL = 0x0f, NETFN_APP = 6, GET_DEVICE_ID = 1 };

struct msg { u8 netfn, cmd; u16 data_len; u8 *data; };
struct req { u8 *addr; u32 addr_len; long msgid; struct msg msg; };
struct recv { int type; u8 *addr; u32 addr_len; long msgid; struct msg msg; };
struct address { int type; short channel; u8 lun; };
struct pollfd { int fd; short events, revents; };

#define IOC(dir, nr, size) (((u64)(dir) << 30) | ((u64)(size) << 16) | ('i' << 8) | (nr))
#define SEND_COMMAND IOC(2, 13, sizeof(struct req))
#define RECEIVE_MSG_TRUNC IOC(3, 11, sizeof(struct recv))

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static void leave(const char *why, int status)
{
    long length = 0;
    while (why[length])
        length++;
    call(SYS_write, 1, (long)why, length);
    call(SYS_exit, status, 0, 0);
}

void _start(void)
{
    static const char digits[] = "0123456789abcdef";
    static u8 data[64];
    static char line[5 + 3 * sizeof data];
    struct address to = { SYSTEM_INTERFACE, BMC_CHANNEL, 0 }, from = { 0, 0, 0 };
    struct req request = { (u8 *)&to, sizeof to, 1, { NETFN_APP, GET_DEVICE_ID, 0, data } };
    struct recv reply = { 0, (u8 *)&from, sizeof from, 0, { 0, 0, sizeof data, data } };
    long fd = call(SYS_open, (long)"/dev/ipmi0", O_RDWR, 0);
    struct pollfd waiting = { (int)fd, POLLIN, 0 };
    long place = 5;

    if (fd < 0)
        leave("no /dev/ipmi0\n", 1);
    if (call(SYS_ioctl, fd, SEND_COMMAND, (long)&request) < 0)
        leave("send failed\n", 1);
    if (call(SYS_poll, (long)&waiting, 1, TIMEOUT_MS) != 1)
        leave("no answer\n", 1);
    if (call(SYS_ioctl, fd, RECEIVE_MSG_TRUNC, (long)&reply) < 0)
        leave("receive failed\n", 1);
    __builtin_memcpy(line, "IPMI ", 5);
    for (int i = 0; i < reply.msg.data_len && i < (int)sizeof data; i++) {
        line[place++] = digits[data[i] >> 4];
        line[place++] = digits[data[i] & 15];
        line[place++] = ' ';
    }
    line[place - 1] = '\n';
    call(SYS_write, 1, (long)line, place);
    call(SYS_exit, data[0] != 0, 0, 0);
}
