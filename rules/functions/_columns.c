/* The steps that whole columns take most often, each in one pass; alone, or many of them as a tape.
 *
 * The compiled twins of what stands in rules/functions/columns.py; both give the same bits. numpy makes a pass for each
 * operation; a column of 5,500 symbols is 44 kB, so what costs is moving columns, not arithmetic. A tape takes some
 * hundred symbols through all its steps before the next: what lies between two steps never leaves the nearest cache.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>

/* Each loop is compiled for what the processor may have, and the best is taken when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define TOLERANCE 1e-9
enum {
    BLOCK = 512,      /* symbols that go through a tape together; a multiple of 8 */
    MOST_COLUMNS = 6, /* of one step */
    STEP_WORDS = 8    /* of one step on a tape: its number in STEPS, then which columns it takes */
};

/* ── the loops: n symbols, a number of the step's own, its columns in the order of `kinds` ───────────────────── */

typedef const double *restrict In;
typedef const unsigned char *restrict BoolIn;
typedef double *restrict Out;
typedef unsigned char *restrict BoolOut;

/* Steps that make one number of one or two. */
#define OF_TWO(name, value)                                         \
    FOR_EACH_PROCESSOR static void                                  \
    name##_loop(Py_ssize_t n, double unused, void *const *column)   \
    {                                                               \
        In a = column[0], b = column[1];                            \
        Out out = column[2];                                        \
        (void)unused;                                               \
        for (Py_ssize_t i = 0; i < n; i++)                          \
            out[i] = (value);                                       \
    }
#define OF_ONE(name, value)                                         \
    FOR_EACH_PROCESSOR static void                                  \
    name##_loop(Py_ssize_t n, double unused, void *const *column)   \
    {                                                               \
        In a = column[0];                                           \
        Out out = column[1];                                        \
        (void)unused;                                               \
        for (Py_ssize_t i = 0; i < n; i++)                          \
            out[i] = (value);                                       \
    }

OF_TWO(add, a[i] + b[i])
OF_TWO(subtract, a[i] - b[i])
OF_TWO(multiply, a[i] * b[i])
OF_TWO(divide, b[i] == 0.0 ? (double)NAN : a[i] / b[i])
OF_TWO(higher, a[i] >= b[i] || b[i] != b[i] ? a[i] : b[i]) /* of a number and NaN the number; of two equal ones a */
OF_TWO(lower, a[i] <= b[i] || b[i] != b[i] ? a[i] : b[i])
OF_TWO(maximum, a[i] >= b[i] || a[i] != a[i] ? a[i] : b[i]) /* NaN if one is; of two equal ones a */
OF_TWO(minimum, a[i] <= b[i] || a[i] != a[i] ? a[i] : b[i])
OF_ONE(negate, -a[i])
OF_ONE(size, fabs(a[i]))

FOR_EACH_PROCESSOR static void
shift_loop(Py_ssize_t n, double share, void *const *column)
{
    In x = column[0];
    Out out = column[1];
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(x[i]) < 1.0 ? 1.0 : fabs(x[i]);
        out[i] = x[i] + share * size;
    }
}

FOR_EACH_PROCESSOR static void
compare_loop(Py_ssize_t n, double unused, void *const *column)
{
    In a = column[0], b = column[1];
    BoolOut above = column[2], not_above = column[3];
    (void)unused;
    for (Py_ssize_t i = 0; i < n; i++) {
        above[i] = a[i] > b[i];
        not_above[i] = a[i] <= b[i];
    }
}

FOR_EACH_PROCESSOR static void
cross_loop(Py_ssize_t n, double unused, void *const *column)
{
    In a = column[0], b = column[1];
    BoolIn below = column[2];
    BoolOut crossed = column[3], not_crossed = column[4];
    (void)unused;
    for (Py_ssize_t i = 0; i < n; i++) {
        unsigned char both = (a[i] > b[i]) & below[i];
        crossed[i] = both;
        not_crossed[i] = both ^ 1;
    }
}

FOR_EACH_PROCESSOR static void
add_share_loop(Py_ssize_t n, double share, void *const *column)
{
    In x = column[0], base = column[1];
    Out out = column[2];
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

FOR_EACH_PROCESSOR static void
smooth_loop(Py_ssize_t n, double weight, void *const *column)
{
    In x = column[0], rest = column[1];
    Out out = column[3];
    Py_ssize_t unknown = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        out[i] = x[i] * weight + rest[i];
        unknown += out[i] != out[i];
    }
    if (unknown > 0)
        hold_loop(n, x, column[2], out);
}

FOR_EACH_PROCESSOR static void
divide_near_loop(Py_ssize_t n, double unused, void *const *column)
{
    In a = column[0], b = column[1], side = column[2];
    Out out = column[3];
    (void)unused;
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(side[i]) < 1.0 ? 1.0 : fabs(side[i]);
        out[i] = fabs(b[i]) <= TOLERANCE * size ? (double)NAN : a[i] / b[i];
    }
}

FOR_EACH_PROCESSOR static void
spread_loop(Py_ssize_t n, double weight, void *const *column)
{
    In x = column[0], mean = column[1], m2 = column[2], floor = column[3];
    Out out = column[4];
    for (Py_ssize_t i = 0; i < n; i++) {
        double apart = x[i] - mean[i];
        double joined = apart * apart * weight + m2[i];
        out[i] = joined <= floor[i] ? 0.0 : joined;
    }
}

FOR_EACH_PROCESSOR static void
rooted_spread_loop(Py_ssize_t n, double weight, void *const *column)
{
    Out out = column[4];
    spread_loop(n, weight, column);
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = sqrt(out[i]);
}

/* kinds: 'd' and 'b' are numbers and bools that are read, 'D' and 'B' are written. What is written comes last. */
typedef struct {
    const char *name, *kinds;
    void (*run)(Py_ssize_t n, double number, void *const *columns);
} Step;

static const Step STEPS[] = {
    {"shift", "dD", shift_loop},         {"compare", "ddBB", compare_loop},  {"cross", "ddbBB", cross_loop},
    {"add", "ddD", add_loop},            {"subtract", "ddD", subtract_loop}, {"multiply", "ddD", multiply_loop},
    {"negate", "dD", negate_loop},       {"size", "dD", size_loop},          {"add_share", "ddD", add_share_loop},
    {"smooth", "dddD", smooth_loop},     {"higher", "ddD", higher_loop},     {"lower", "ddD", lower_loop},
    {"maximum", "ddD", maximum_loop},    {"minimum", "ddD", minimum_loop},   {"divide", "ddD", divide_loop},
    {"divide_near", "dddD", divide_near_loop}, {"spread", "ddddD", spread_loop},
    {"rooted_spread", "ddddD", rooted_spread_loop},
};
enum { N_STEPS = sizeof(STEPS) / sizeof(STEPS[0]) };

static int
is_written(char kind)
{
    return kind == 'D' || kind == 'B';
}

static const char *
format_of(char kind)
{
    return kind == 'd' || kind == 'D' ? "d" : "?";
}

static void
release(Py_buffer *views, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        PyBuffer_Release(&views[i]);
}

/* ── one step ────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Hold the columns of a step. Returns their length; -1, with an exception set and nothing held, if one has a length of
 * its own or may not be written. */
static Py_ssize_t
hold(PyObject *const *given, const char *kinds, Py_buffer *views)
{
    Py_ssize_t n = -1;
    for (Py_ssize_t i = 0; kinds[i]; i++) {
        int flags = PyBUF_STRIDES | PyBUF_FORMAT | (is_written(kinds[i]) ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(given[i], &views[i], flags) < 0) {
            release(views, i);
            return -1;
        }
        if (n < 0 && views[i].ndim == 1)
            n = views[i].shape[0];
        if (views[i].ndim != 1 || views[i].shape[0] != n) {
            PyErr_Format(PyExc_ValueError, "column %zd is not as long as the others", i + 1);
            release(views, i + 1);
            return -1;
        }
    }
    return n;
}

/* Tell whether a column is of its kind's type, and dense. */
static int
fits(const Py_buffer *view, char kind)
{
    return strcmp(view->format, format_of(kind)) == 0 && (view->shape[0] < 2 || view->strides[0] == view->itemsize);
}

static const Step *
step_of(PyObject *name)
{
    for (Py_ssize_t i = 0; i < N_STEPS; i++)
        if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, STEPS[i].name) == 0)
            return &STEPS[i];
    PyErr_Format(PyExc_ValueError, "there is no step %R", name);
    return NULL;
}

PyDoc_STRVAR(take_doc,
"take(name, number, *columns) -> bool\n\n"
"Take one step. False, with nothing written, where a column is of another type or layout, which is numpy's to do.");

static PyObject *
take(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Py_buffer views[MOST_COLUMNS];
    void *columns[MOST_COLUMNS];
    (void)module;
    if (given < 2) {
        PyErr_SetString(PyExc_TypeError, "a step takes its name, a number and its columns");
        return NULL;
    }
    const Step *step = step_of(args[0]);
    double number = PyFloat_AsDouble(args[1]);
    if (step == NULL || (number == -1.0 && PyErr_Occurred()))
        return NULL;
    Py_ssize_t count = (Py_ssize_t)strlen(step->kinds);
    if (given - 2 != count) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd columns, not %zd", step->name, count, given - 2);
        return NULL;
    }
    Py_ssize_t n = hold(args + 2, step->kinds, views);
    if (n < 0)
        return NULL;
    int ours = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        ours = ours && fits(&views[i], step->kinds[i]);
        columns[i] = views[i].buf;
    }
    if (ours)
        step->run(n, number, columns);
    release(views, count);
    return PyBool_FromLong(ours);
}

/* ── a tape ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Pack bools into bits, most significant first, as numpy's packbits; bits behind the last are 0. */
static void
pack(Py_ssize_t n, const unsigned char *bools, unsigned char *bits)
{
    for (; n >= 8; n -= 8, bools += 8) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        uint64_t eight;
        memcpy(&eight, bools, 8);
        *bits++ = (unsigned char)(eight * UINT64_C(0x8040201008040201) >> 56); /* byte i comes to bit 63 - i */
#else
        unsigned byte = 0;
        for (int i = 0; i < 8; i++)
            byte |= (unsigned)bools[i] << (7 - i);
        *bits++ = (unsigned char)byte;
#endif
    }
    if (n > 0) {
        unsigned byte = 0;
        for (int i = 0; i < n; i++)
            byte |= (unsigned)bools[i] << (7 - i);
        *bits = (unsigned char)byte;
    }
}

/* A column of a tape: where it lies, and its length. */
typedef struct {
    Py_buffer view;
    char *start;
    Py_ssize_t length;
    int is_held, is_gathered;
} Column;

/* Where a step finds a column: from one symbol to the next it is `stride` bytes, none in what each block uses anew. */
typedef struct {
    char *start;
    Py_ssize_t stride;
} Place;

/* Steps, and the columns they take: those that stand for the whole market, then those of this call. */
typedef struct {
    const int16_t *words;
    const double *numbers;
    Py_ssize_t steps, standing, count, n;
    Column *columns;
    Place *places; /* MOST_COLUMNS a step */
} Tape;

static Column *
column_of(const Tape *tape, int place)
{
    return &tape->columns[place < 0 ? -1 - place : tape->standing + place];
}

/* Refuse a column that step `at` of the tape cannot take: numbers and bools are of all n symbols, or one block long, which
 * every block of symbols uses anew; truths are written as bits. */
static int
check(const Column *column, char kind, Py_ssize_t n, Py_ssize_t at)
{
    int is_bits = kind == 'B';
    int right = strcmp(column->view.format, is_bits ? "B" : format_of(kind)) == 0 &&
                (is_bits ? column->length == (n + 7) / 8 : column->length == n || column->length == BLOCK) &&
                !(is_written(kind) && (column->view.readonly || column->is_gathered));
    if (!right)
        PyErr_Format(PyExc_ValueError, "step %zd of the tape cannot take a column it names", at);
    return right;
}

/* Find the columns of each step; 0 with an exception set if one is not there or does not fit. */
static int
find(const Tape *tape)
{
    const int16_t *words = tape->words;
    for (Py_ssize_t at = 0; at < tape->steps; at++, words += STEP_WORDS) {
        if (words[0] < 0 || words[0] >= N_STEPS) {
            PyErr_Format(PyExc_ValueError, "step %zd of the tape is none", at);
            return 0;
        }
        const char *kinds = STEPS[words[0]].kinds;
        for (Py_ssize_t i = 0; kinds[i]; i++) {
            int place = words[1 + i];
            if (-1 - place >= tape->standing || place >= tape->count - tape->standing) {
                PyErr_Format(PyExc_ValueError, "step %zd of the tape names a column that is not there", at);
                return 0;
            }
            const Column *column = column_of(tape, place);
            if (!check(column, kinds[i], tape->n, at))
                return 0;
            tape->places[at * MOST_COLUMNS + i] =
                (Place){column->start, column->length == tape->n ? column->view.itemsize : 0};
        }
    }
    return 1;
}

/* Take the symbols from `start` on, a block of them, through all steps. */
static void
play_block(const Tape *tape, Py_ssize_t start)
{
    unsigned char truths[2][BLOCK];
    const Place *place = tape->places;
    Py_ssize_t size = tape->n - start < BLOCK ? tape->n - start : BLOCK;
    for (Py_ssize_t at = 0; at < tape->steps; at++, place += MOST_COLUMNS) {
        const Step *step = &STEPS[tape->words[at * STEP_WORDS]];
        void *columns[MOST_COLUMNS];
        int told = 0;
        for (Py_ssize_t i = 0; step->kinds[i]; i++)
            columns[i] = step->kinds[i] == 'B' ? (char *)truths[told++] : place[i].start + start * place[i].stride;
        step->run(size, tape->numbers[at], columns);
        for (Py_ssize_t i = 0; step->kinds[i]; i++)
            if (step->kinds[i] == 'B')
                pack(size, columns[i], (unsigned char *)place[i].start + start / 8);
    }
}

/* Hold the columns of a list from `place` on; 0 with an exception set if one is none. */
static int
hold_list(PyObject *given, Column *columns)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(given); i++) {
        if (PyObject_GetBuffer(PyList_GET_ITEM(given, i), &columns[i].view, PyBUF_ND | PyBUF_FORMAT) < 0)
            return 0;
        columns[i].is_held = 1;
        if (columns[i].view.ndim != 1) {
            PyErr_SetString(PyExc_ValueError, "a column has one dimension");
            return 0;
        }
        columns[i].start = columns[i].view.buf;
        columns[i].length = columns[i].view.shape[0];
    }
    return 1;
}

/* Put what a standing column holds at these rows side by side; 0 with an exception set if it is shorter. */
static int
gather(Column *column, const int64_t *rows, Py_ssize_t n)
{
    Py_ssize_t width = column->view.itemsize;
    char *found = PyMem_Malloc(n ? n * width : 1);
    if (found == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    const char *from = column->start;
    Py_ssize_t length = column->length;
    column->start = found;
    column->length = n;
    column->is_gathered = 1;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (rows[i] < 0 || rows[i] >= length) {
            PyErr_Format(PyExc_IndexError, "there is no row %lld in a column of %zd", (long long)rows[i], length);
            return 0;
        }
        memcpy(found + i * width, from + rows[i] * width, width);
    }
    return 1;
}

/* Hold what was given, gather what stands for all symbols if some are chosen, and play; 0 with an exception set. */
static int
play_lists(Tape *tape, PyObject *standing, PyObject *others, PyObject *rows)
{
    Py_buffer chosen;
    int good = hold_list(standing, tape->columns) && hold_list(others, tape->columns + tape->standing);
    if (good && rows != Py_None) {
        if (PyObject_GetBuffer(rows, &chosen, PyBUF_ND | PyBUF_FORMAT) < 0)
            return 0;
        good = chosen.ndim == 1 && chosen.itemsize == 8 && chosen.shape[0] == tape->n;
        if (!good)
            PyErr_SetString(PyExc_ValueError, "rows are as many int64 as there are symbols");
        for (Py_ssize_t i = 0; good && i < tape->standing; i++)
            good = gather(&tape->columns[i], chosen.buf, tape->n);
        PyBuffer_Release(&chosen);
    }
    good = good && find(tape);
    for (Py_ssize_t start = 0; good && start < tape->n; start += BLOCK)
        play_block(tape, start);
    return good;
}

PyDoc_STRVAR(play_doc,
"play(tape, numbers, standing, others, n, rows)\n\n"
"Take n symbols through the steps of a tape: bytes, eight int16 a step. `numbers` holds a float64 a step. Of the columns\n"
"the standing ones, which tapes call -1, -2 …, are those of the whole market; `rows` chooses n symbols, None = all.");

static PyObject *
play(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Tape tape;
    (void)module;
    if (given != 6 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[1]) || !PyList_Check(args[2]) || !PyList_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "play takes a tape, numbers, two lists of columns, how many symbols, and which");
        return NULL;
    }
    tape.words = (const int16_t *)PyBytes_AS_STRING(args[0]);
    tape.numbers = (const double *)PyBytes_AS_STRING(args[1]);
    tape.steps = PyBytes_GET_SIZE(args[0]) / (Py_ssize_t)(STEP_WORDS * sizeof(int16_t));
    tape.standing = PyList_GET_SIZE(args[2]);
    tape.count = tape.standing + PyList_GET_SIZE(args[3]);
    tape.n = PyLong_AsSsize_t(args[4]);
    if (tape.n < 0 || PyBytes_GET_SIZE(args[1]) != tape.steps * (Py_ssize_t)sizeof(double)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the tape needs a number for each step");
        return NULL;
    }
    tape.columns = PyMem_Calloc(tape.count ? tape.count : 1, sizeof(Column));
    tape.places = PyMem_Calloc(tape.steps ? tape.steps * MOST_COLUMNS : 1, sizeof(Place));
    int good = tape.columns != NULL && tape.places != NULL;
    if (good)
        good = play_lists(&tape, args[2], args[3], args[5]);
    else
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; tape.columns != NULL && i < tape.count; i++) {
        if (tape.columns[i].is_gathered)
            PyMem_Free(tape.columns[i].start);
        if (tape.columns[i].is_held)
            PyBuffer_Release(&tape.columns[i].view);
    }
    PyMem_Free(tape.columns);
    PyMem_Free(tape.places);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, take_doc},
    {"play", (PyCFunction)(void (*)(void))play, METH_FASTCALL, play_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_columns",
    .m_doc = "The steps that whole columns take most often, each in one pass; alone, or many of them as a tape.",
    .m_size = -1,
    .m_methods = methods,
};

/* Return {name: kinds}, in the order of STEPS. */
static PyObject *
described(void)
{
    PyObject *found = PyDict_New();
    for (Py_ssize_t i = 0; found != NULL && i < N_STEPS; i++) {
        PyObject *kinds = PyUnicode_FromString(STEPS[i].kinds);
        if (kinds == NULL || PyDict_SetItemString(found, STEPS[i].name, kinds) < 0)
            Py_CLEAR(found);
        Py_XDECREF(kinds);
    }
    return found;
}

PyMODINIT_FUNC
PyInit__columns(void)
{
    PyObject *module = PyModule_Create(&definition), *steps = described();
    if (module == NULL || steps == NULL || PyModule_AddObjectRef(module, "STEPS", steps) < 0 ||
        PyModule_AddIntMacro(module, BLOCK) < 0)
        Py_CLEAR(module);
    Py_XDECREF(steps);
    return module;
}
