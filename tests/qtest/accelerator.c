/* The accelerator "qtest" for a packaged QEMU 7.2 that was built without it, as a module of that QEMU.
 *
 * It registers two QOM types and needs no header of QEMU: the binary exports the functions to its modules, and
 * the two class structures are written to at the offsets that they have in 7.2 on x86-64. STAMP is the symbol by
 * which a binary knows its own modules.
 */
#include <stddef.h>
#include <stdint.h>

enum { ACCEL_NAME = 96, ACCEL_INIT_MACHINE = 104, ACCEL_ALLOWED = 136 };     /* AccelClass */
enum { OPS_CREATE_VCPU_THREAD = 112, OPS_GET_VIRTUAL_CLOCK = 184 };          /* AccelOpsClass */
enum { MODULE_INIT_QOM = 3 };

struct qom_type {                                                            /* TypeInfo */
    const char *name;
    const char *parent;
    size_t instance[2];
    void *instance_hooks[3];
    size_t is_abstract;                                                      /* a bool and its padding */
    size_t class_size;
    void (*fill_class)(char *, void *);
    void *rest[3];
};
_Static_assert(sizeof(struct qom_type) == 104, "layout of TypeInfo");

extern char qtest_allowed;
int64_t qtest_get_virtual_clock(void);
void dummy_start_vcpu_thread(void *);
void *type_register_static(const struct qom_type *);
void register_dso_module_init(void (*)(void), int);

static void put(char *structure, size_t offset, const void *value)
{
    *(const void **)(structure + offset) = value;
}

static int nothing_to_set_up(void *machine)
{
    (void)machine;
    return 0;
}

static void fill_accel(char *structure, void *data)
{
    (void)data;
    put(structure, ACCEL_NAME, "QTest");
    put(structure, ACCEL_INIT_MACHINE, (const void *)nothing_to_set_up);
    put(structure, ACCEL_ALLOWED, &qtest_allowed);
}

static void fill_ops(char *structure, void *data)
{
    (void)data;
    put(structure, OPS_CREATE_VCPU_THREAD, (const void *)dummy_start_vcpu_thread);
    put(structure, OPS_GET_VIRTUAL_CLOCK, (const void *)qtest_get_virtual_clock);
}

static const struct qom_type types[] = {
    {.name = "qtest-accel", .parent = "accel", .fill_class = fill_accel},
    {.name = "qtest-accel-ops", .parent = "accel-ops", .is_abstract = 1, .fill_class = fill_ops},
};

static void register_types(void)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        type_register_static(&types[i]);
}

__attribute__((constructor)) static void loaded(void)
{
    register_dso_module_init(register_types, MODULE_INIT_QOM);
}

void qemu_module_dummy(void)
{
}

void STAMP(void)
{
}
