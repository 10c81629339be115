/* The steps that whole columns take most often, each in one pass.
 *
 * The compiled twins of what stands in rules/functions/columns.py; both give the same bits. numpy makes a pass for each
 * operation; a column of 5,500 symbols is 44 kB, so what costs is moving columns, not arithmetic.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>

/* Each loop is compiled for what the processor may have, and the best is taken when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define TOLERANCE 1e-9
enum { MOST_COLUMNS = 6 };

/* A column of doubles or of bools. step: 1, or 0 where one element stands for all. */
typedef struct {
    Py_buffer view;
    Py_ssize_t step;
} Column;

static void
release(Column *columns, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        PyBuffer_Release(&columns[i].view);
}

enum { FAILED = -1, NOT_OURS = -2 };

/* Take the columns that `kinds` describes: 'd' and 'b' are read, 'D' and 'B' written. Returns their length; FAILED, with
 * an exception set, if one has a length of its own or may not be written; NOT_OURS if one is of another type, or
 * neither dense nor constant, which is numpy's to do. Nothing is held then. */
static Py_ssize_t
take(PyObject *const *given, const char *kinds, Column *columns)
{
    Py_ssize_t n = -1, count = (Py_ssize_t)strlen(kinds);
    int ours = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        int written = kinds[i] == 'D' || kinds[i] == 'B', number = kinds[i] == 'd' || kinds[i] == 'D';
        Py_buffer *view = &columns[i].view;
        if (PyObject_GetBuffer(given[i], view, PyBUF_STRIDES | PyBUF_FORMAT | (written ? PyBUF_WRITABLE : 0)) < 0) {
            release(columns, i);
            return FAILED;
        }
        if (n < 0 && view->ndim == 1)
            n = view->shape[0];
        if (view->ndim != 1 || view->shape[0] != n) {
            PyErr_Format(PyExc_ValueError, "column %zd is not as long as the others", i + 1);
            release(columns, i + 1);
            return FAILED;
        }
        Py_ssize_t stride = view->strides[0];
        ours = ours && strcmp(view->format, number ? "d" : "?") == 0 &&
               (stride == view->itemsize || n < 2 || (stride == 0 && !written));
        columns[i].step = stride == 0 ? 0 : 1;
    }
    if (ours)
        return n;
    release(columns, count);
    return NOT_OURS;
}

/* ── the loops ───────────────────────────────────────────────────────────────────────────────────────────────── */

typedef const double *restrict In;
typedef const unsigned char *restrict BoolIn;
typedef double *restrict Out;
typedef unsigned char *restrict BoolOut;

FOR_EACH_PROCESSOR static void
shift_loop(Py_ssize_t n, double share, In x, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(x[i]) < 1.0 ? 1.0 : fabs(x[i]);
        out[i] = x[i] + share * size;
    }
}

FOR_EACH_PROCESSOR static void
compare_loop(Py_ssize_t n, In a, In b, BoolOut above, BoolOut not_above)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        above[i] = a[i] > b[i];
        not_above[i] = a[i] <= b[i];
    }
}

FOR_EACH_PROCESSOR static void
compare_one_loop(Py_ssize_t n, double a, In b, BoolOut above, BoolOut not_above)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        above[i] = a > b[i];
        not_above[i] = a <= b[i];
    }
}

FOR_EACH_PROCESSOR static void
compare_to_one_loop(Py_ssize_t n, In a, double b, BoolOut above, BoolOut not_above)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        above[i] = a[i] > b;
        not_above[i] = a[i] <= b;
    }
}

FOR_EACH_PROCESSOR static void
cross_loop(Py_ssize_t n, In a, In b, BoolIn below, BoolOut crossed, BoolOut not_crossed)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        unsigned char both = (a[i] > b[i]) & below[i];
        crossed[i] = both;
        not_crossed[i] = both ^ 1;
    }
}

FOR_EACH_PROCESSOR static void
add_share_loop(Py_ssize_t n, double share, In x, In base, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = x[i] * share + base[i];
}

/* Where there is a NaN, which is rare, put the value before in its place, or x where that is NaN, too. */
FOR_EACH_PROCESSOR static void
hold_loop(Py_ssize_t n, In x, In before, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double held = before[i] == before[i] ? before[i] : x[i];
        out[i] = out[i] == out[i] ? out[i] : held;
    }
}

/* Returns how many elements are NaN. */
FOR_EACH_PROCESSOR static Py_ssize_t
smooth_loop(Py_ssize_t n, double weight, In x, In rest, Out out)
{
    Py_ssize_t unknown = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        out[i] = x[i] * weight + rest[i];
        unknown += out[i] != out[i];
    }
    return unknown;
}

FOR_EACH_PROCESSOR static void
higher_loop(Py_ssize_t n, In a, In b, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = a[i] >= b[i] || b[i] != b[i] ? a[i] : b[i];
}

FOR_EACH_PROCESSOR static void
lower_loop(Py_ssize_t n, In a, In b, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = a[i] <= b[i] || b[i] != b[i] ? a[i] : b[i];
}

FOR_EACH_PROCESSOR static void
divide_loop(Py_ssize_t n, In a, In b, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = b[i] == 0.0 ? (double)NAN : a[i] / b[i];
}

FOR_EACH_PROCESSOR static void
divide_near_loop(Py_ssize_t n, In a, In b, In side, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(side[i]) < 1.0 ? 1.0 : fabs(side[i]);
        out[i] = fabs(b[i]) <= TOLERANCE * size ? (double)NAN : a[i] / b[i];
    }
}

FOR_EACH_PROCESSOR static void
spread_loop(Py_ssize_t n, double weight, In x, In mean, In m2, In floor, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double apart = x[i] - mean[i];
        double joined = apart * apart * weight + m2[i];
        out[i] = joined <= floor[i] ? 0.0 : joined;
    }
}

/* ── what Python calls ───────────────────────────────────────────────────────────────────────────────────────── */

#define DATA(i) (columns[i].view.buf)

/* Check the number of arguments, take a leading number if `number` is wanted, and the columns behind it. */
static Py_ssize_t
begin(PyObject *const *args, Py_ssize_t given, double *number, const char *kinds, Column *columns)
{
    Py_ssize_t numbers = number == NULL ? 0 : 1;
    if (given != numbers + (Py_ssize_t)strlen(kinds)) {
        PyErr_Format(PyExc_TypeError, "%zd arguments, not %zd", numbers + (Py_ssize_t)strlen(kinds), given);
        return -1;
    }
    if (number != NULL) {
        *number = PyFloat_AsDouble(args[0]);
        if (*number == -1.0 && PyErr_Occurred())
            return -1;
    }
    return take(args + numbers, kinds, columns);
}

/* What Python is told where nothing was taken: False leaves the step to numpy. */
static PyObject *
refused(Py_ssize_t why)
{
    return why == NOT_OURS ? PyBool_FromLong(0) : NULL;
}

/* Refuse constants: their readers are rare enough to take numpy's way. */
static int
dense(Column *columns, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (columns[i].step == 0 && columns[i].view.shape[0] > 1)
            return 0;
    return 1;
}

static PyObject *
finish(Column *columns, Py_ssize_t count, int done)
{
    release(columns, count);
    return PyBool_FromLong(done);
}

static PyObject *
shift(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    double share;
    Py_ssize_t n = begin(args, given, &share, "dD", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 1);
    if (done)
        shift_loop(n, share, DATA(0), DATA(1));
    return finish(columns, 2, done);
}

static PyObject *
compare(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    Py_ssize_t n = begin(args, given, NULL, "ddBB", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 1) || dense(columns + 1, 1);
    if (done && columns[0].step == 0)
        compare_one_loop(n, n > 0 ? *(const double *)DATA(0) : 0.0, DATA(1), DATA(2), DATA(3));
    else if (done && columns[1].step == 0)
        compare_to_one_loop(n, DATA(0), n > 0 ? *(const double *)DATA(1) : 0.0, DATA(2), DATA(3));
    else if (done)
        compare_loop(n, DATA(0), DATA(1), DATA(2), DATA(3));
    return finish(columns, 4, done);
}

static PyObject *
cross(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    Py_ssize_t n = begin(args, given, NULL, "ddbBB", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 3);
    if (done)
        cross_loop(n, DATA(0), DATA(1), DATA(2), DATA(3), DATA(4));
    return finish(columns, 5, done);
}

static PyObject *
add_share(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    double share;
    Py_ssize_t n = begin(args, given, &share, "ddD", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 2);
    if (done)
        add_share_loop(n, share, DATA(0), DATA(1), DATA(2));
    return finish(columns, 3, done);
}

static PyObject *
smooth(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    double weight;
    Py_ssize_t n = begin(args, given, &weight, "dddD", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 3);
    if (done && smooth_loop(n, weight, DATA(0), DATA(1), DATA(3)) > 0)
        hold_loop(n, DATA(0), DATA(2), DATA(3));
    return finish(columns, 4, done);
}

static PyObject *
higher(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    Py_ssize_t n = begin(args, given, NULL, "ddD", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 2);
    if (done)
        higher_loop(n, DATA(0), DATA(1), DATA(2));
    return finish(columns, 3, done);
}

static PyObject *
lower(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    Py_ssize_t n = begin(args, given, NULL, "ddD", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 2);
    if (done)
        lower_loop(n, DATA(0), DATA(1), DATA(2));
    return finish(columns, 3, done);
}

static PyObject *
divide(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    Py_ssize_t n = begin(args, given, NULL, "ddD", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 2);
    if (done)
        divide_loop(n, DATA(0), DATA(1), DATA(2));
    return finish(columns, 3, done);
}

static PyObject *
divide_near(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    Py_ssize_t n = begin(args, given, NULL, "dddD", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 3);
    if (done)
        divide_near_loop(n, DATA(0), DATA(1), DATA(2), DATA(3));
    return finish(columns, 4, done);
}

static PyObject *
spread(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Column columns[MOST_COLUMNS];
    double weight;
    Py_ssize_t n = begin(args, given, &weight, "ddddD", columns);
    (void)module;
    if (n < 0)
        return refused(n);
    int done = dense(columns, 4);
    if (done)
        spread_loop(n, weight, DATA(0), DATA(1), DATA(2), DATA(3), DATA(4));
    return finish(columns, 5, done);
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, "As in rules/functions/columns.py."}

static PyMethodDef methods[] = {
    METHOD(shift), METHOD(compare), METHOD(cross), METHOD(add_share), METHOD(smooth), METHOD(higher), METHOD(lower), METHOD(divide),
    METHOD(divide_near), METHOD(spread), {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_columns",
    .m_doc = "The steps that whole columns take most often, each in one pass.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__columns(void)
{
    return PyModule_Create(&definition);
}
