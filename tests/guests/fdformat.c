/* Formats /dev/fd1 as the medium in it is laid out, through the floppy driver's ioctls, without a C library. Exits
 * with 0 if every track was formatted. Structures and numbers: Linux UAPI linux/fd.h. */

typedef unsigned long u64;
typedef unsigned int u32;

enum { SYS_open = 2, SYS_ioctl = 16, SYS_exit = 60, O_RDWR = 2 };
enum { TRACKS = 80, HEADS = 2 };

struct format_descr { u32 device, head, track; };

#define IOC(dir, nr, size) (((u64)(dir) << 30) | ((u64)(size) << 16) | (2 << 8) | (nr))
#define FDFMTBEG IOC(0, 0x47, 0)
#define FDFMTTRK IOC(1, 0x48, sizeof(struct format_descr))
#define FDFMTEND IOC(0, 0x49, 0)

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

void _start(void)
{
    long fd = call(SYS_open, (long)"/dev/fd1", O_RDWR, 0);
    long failed = fd < 0 || call(SYS_ioctl, fd, FDFMTBEG, 0) < 0;

    for (u32 track = 0; track < TRACKS && !failed; track++) {
        for (u32 head = 0; head < HEADS && !failed; head++) {
            struct format_descr where = { 0, head, track };
            failed = call(SYS_ioctl, fd, FDFMTTRK, (long)&where) < 0;
        }
    }
    if (call(SYS_ioctl, fd, FDFMTEND, 0) < 0)
        failed = 1;
    call(SYS_exit, failed, 0, 0);
}
