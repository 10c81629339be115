/* Tapes: steps over whole columns, many of them in one call; rules/tape.py writes them down.
 *
 * numpy makes a pass for each operation; a column of 5,500 symbols is 44 kB, so what costs is moving columns, not
 * arithmetic. A tape takes some hundred symbols through all its steps before the next: what lies between two steps
 * never leaves the nearest cache, and what the next hundred need is asked for meanwhile.
 */

#define PY_SSIZE_T_CLEAN
#include "_steps.h"

enum {
    LAYOUT = 2,       /* what rules/tape.py must have been written for; raise it with any change it can see */
    MOST_COLUMNS = 6, /* of one step */
    STEP_WORDS = 8,   /* of one step on a tape: its number in STEPS, then which columns it takes */
    LINE = 64         /* bytes that come from memory at once */
};

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif

/* A column: the array that is held, and where its numbers lie, which is elsewhere for symbols that were gathered. */
typedef struct {
    PyObject *array;
    Py_buffer view;
    const char *start;
    Py_ssize_t length;
} Column;

/* Where a step finds a column: from one symbol to the next it is `stride` bytes, none in what each block uses anew.
 * is_first: no step before it has asked for this column. */
typedef struct {
    char *start;
    Py_ssize_t stride;
    int is_first;
} Place;

/* Steps, and the columns they take: those that stand for the whole market, which tapes call -1, -2 …, then the others.
 * Arrays are held from one play to the next: nearly all are the same again, and to ask for one costs 0.2 µs. */
typedef struct {
    PyObject_HEAD
    int16_t *words;
    double *numbers;
    Py_ssize_t steps, standing, count;
    Column *columns;
    Place *places;        /* MOST_COLUMNS a step */
    Py_ssize_t n;         /* symbols that the places were found for; -1: they must be found anew */
} Tape;

static int
is_written(char kind)
{
    return kind == 'D' || kind == 'B';
}

/* Tell whether what is read is worth asking for early. */
static int
is_asked_for(char kind)
{
    return kind == 'd' || kind == 'b';
}

static const char *
format_of(char kind)
{
    return kind == 'B' ? "B" : kind == 'b' ? "?" : "d";
}

static Column *
column_of(const Tape *tape, int place)
{
    return &tape->columns[place < 0 ? -1 - place : tape->standing + place];
}

/* ── columns ─────────────────────────────────────────────────────────────────────────────────────────────────── */

static void
let_go(Column *column)
{
    if (column->array != NULL) {
        PyBuffer_Release(&column->view);
        Py_CLEAR(column->array);
    }
}

/* Let go of what stands there and is a batch's own: what tells of one rule's events is played when it fires, and would
 * keep a market's 0.5 MB from then to its next event. */
static void
let_go_of_lent(Tape *tape)
{
    for (Py_ssize_t i = 0; i < tape->standing; i++)
        if (tape->columns[i].array != NULL && tape->columns[i].view.readonly)
            let_go(&tape->columns[i]);
}

/* Hold the arrays of a list, those that are not held already; 0 with an exception set if one is no column. */
static int
hold(Tape *tape, PyObject *given, Column *columns)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(given); i++) {
        Column *column = &columns[i];
        PyObject *array = PyList_GET_ITEM(given, i);
        if (column->array == array)
            continue;
        let_go(column);
        tape->n = -1;
        if (PyObject_GetBuffer(array, &column->view, PyBUF_ND | PyBUF_FORMAT) < 0)
            return 0;
        column->array = Py_NewRef(array);
        if (column->view.ndim != 1) {
            PyErr_SetString(PyExc_ValueError, "a column has one dimension");
            let_go(column);
            return 0;
        }
    }
    return 1;
}

/* Refuse a column that step `at` cannot take: numbers and bools are of all n symbols, or one block long, which every
 * block of symbols uses anew; truths are written as bits. */
static int
check(const Column *column, char kind, Py_ssize_t n, Py_ssize_t at)
{
    int is_gathered = column->start != column->view.buf;
    int right = strcmp(column->view.format, format_of(kind)) == 0 &&
                (kind == 'B' ? column->length == n / 8 + (n % 8 > 0) : column->length == n || column->length == BLOCK) &&
                !(is_written(kind) && (column->view.readonly || is_gathered));
    if (!right)
        PyErr_Format(PyExc_ValueError, "step %zd of the tape cannot take a column it names", at);
    return right;
}

/* Find the columns of each step for n symbols; 0 with an exception set if one does not fit. */
static int
find(Tape *tape, Py_ssize_t n)
{
    char *asked = PyMem_Calloc(tape->count ? tape->count : 1, 1);
    int good = asked != NULL;
    if (!good)
        PyErr_NoMemory();
    const int16_t *words = tape->words;
    for (Py_ssize_t at = 0; good && at < tape->steps; at++, words += STEP_WORDS) {
        const char *kinds = STEPS[words[0]].kinds;
        for (Py_ssize_t i = 0; good && kinds[i]; i++) {
            const Column *column = column_of(tape, words[1 + i]);
            Py_ssize_t stride = column->length == n ? column->view.itemsize : 0;
            good = check(column, kinds[i], n, at);
            tape->places[at * MOST_COLUMNS + i] =
                (Place){(char *)column->start, stride, stride > 0 && is_asked_for(kinds[i]) && !asked[column - tape->columns]};
            asked[column - tape->columns] |= is_asked_for(kinds[i]);
        }
    }
    PyMem_Free(asked);
    return good;
}

/* ── playing ─────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Ask for what the step reads of the symbols from `start` on. */
static void
ask_for(const Place *place, const char *kinds, Py_ssize_t start, Py_ssize_t stop)
{
    for (Py_ssize_t i = 0; kinds[i]; i++)
        if (place[i].is_first)
            for (Py_ssize_t at = start * place[i].stride; at < stop * place[i].stride; at += LINE)
                PREFETCH(place[i].start + at);
}

/* Take the symbols from `start` on, a block of them, through all steps. */
static void
play_block(const Tape *tape, Py_ssize_t start, Py_ssize_t n)
{
    const Place *place = tape->places;
    Py_ssize_t size = n - start < BLOCK ? n - start : BLOCK;
    Py_ssize_t next = start + size, end = n - next < BLOCK ? n : next + BLOCK;
    for (Py_ssize_t at = 0; at < tape->steps; at++, place += MOST_COLUMNS) {
        const Step *step = &STEPS[tape->words[at * STEP_WORDS]];
        void *columns[MOST_COLUMNS];
        for (Py_ssize_t i = 0; step->kinds[i]; i++)
            columns[i] = place[i].start + (step->kinds[i] == 'B' ? start / 8 : start * place[i].stride);
        ask_for(place, step->kinds, next, end);
        step->run(size, tape->numbers[at], columns);
    }
}

/* Put what the standing columns hold at these rows side by side, one column after the other in `found`; 0 with an
 * exception set if one is shorter, or of elements there is no room for. */
static int
gather(Tape *tape, const int64_t *rows, Py_ssize_t n, char *found)
{
    for (Py_ssize_t i = 0; i < tape->standing; i++) {
        Column *column = &tape->columns[i];
        Py_ssize_t width = column->view.itemsize;
        const char *from = column->view.buf;
        column->start = found;
        column->length = n;
        if (width > 8) {
            PyErr_Format(PyExc_ValueError, "a column has elements of 8 bytes at most, not %zd", width);
            return 0;
        }
        for (Py_ssize_t at = 0; at < n; at++, found += width) {
            if (rows[at] < 0 || rows[at] >= column->view.shape[0]) {
                PyErr_Format(PyExc_IndexError, "there is no row %lld in a column of %zd", (long long)rows[at],
                             column->view.shape[0]);
                return 0;
            }
            memcpy(found, from + rows[at] * width, width);
        }
        found = (char *)(((uintptr_t)found + 7) & ~(uintptr_t)7);
    }
    return 1;
}

static void
run(const Tape *tape, Py_ssize_t n)
{
    for (Py_ssize_t start = 0; start < n; start += BLOCK)
        play_block(tape, start, n);
}

/* Play for all symbols; 0 with an exception set. */
static int
play_all(Tape *tape, Py_ssize_t n)
{
    if (tape->n != n) {
        tape->n = -1;
        for (Py_ssize_t i = 0; i < tape->count; i++) {
            tape->columns[i].start = tape->columns[i].view.buf;
            tape->columns[i].length = tape->columns[i].view.shape[0];
        }
        if (!find(tape, n))
            return 0;
        tape->n = n;
    }
    run(tape, n);
    return 1;
}

/* Play for the symbols of these rows; 0 with an exception set. */
static int
play_some(Tape *tape, Py_ssize_t n, PyObject *given)
{
    Py_buffer rows;
    if (PyObject_GetBuffer(given, &rows, PyBUF_ND | PyBUF_FORMAT) < 0)
        return 0;
    tape->n = -1;
    int good = rows.ndim == 1 && (strcmp(rows.format, "l") == 0 || strcmp(rows.format, "q") == 0) && rows.itemsize == 8 &&
               rows.shape[0] == n;
    if (!good)
        PyErr_SetString(PyExc_ValueError, "rows are as many int64 as there are symbols");
    char *found = good ? PyMem_Malloc(8 * n * tape->standing + 1) : NULL;
    if (good && found == NULL)
        good = PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = tape->standing; i < tape->count; i++) {
        tape->columns[i].start = tape->columns[i].view.buf;
        tape->columns[i].length = tape->columns[i].view.shape[0];
    }
    good = good && gather(tape, rows.buf, n, found) && find(tape, n);
    if (good)
        run(tape, n);
    let_go_of_lent(tape);
    PyMem_Free(found);
    PyBuffer_Release(&rows);
    return good;
}

PyDoc_STRVAR(play_doc,
"play(standing, others, n, rows)\n\n"
"Take n symbols through the steps. The standing columns are those of the whole market; `rows` chooses n symbols of them,\n"
"None = all. Columns are one-dimensional arrays, and are held until the next play; read-only ones that stand there, of which\n"
"some symbols were taken, are not.");

static PyObject *
play(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Tape *tape = (Tape *)self;
    if (given != 4 || !PyList_Check(args[0]) || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "play takes two lists of columns, how many symbols, and which");
        return NULL;
    }
    if (PyList_GET_SIZE(args[0]) != tape->standing || PyList_GET_SIZE(args[1]) != tape->count - tape->standing) {
        PyErr_Format(PyExc_ValueError, "the tape takes %zd standing columns and %zd others", tape->standing,
                     tape->count - tape->standing);
        return NULL;
    }
    Py_ssize_t n = PyLong_AsSsize_t(args[2]);
    if (n < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a number of symbols is at least 0");
        return NULL;
    }
    if (!hold(tape, args[0], tape->columns) || !hold(tape, args[1], tape->columns + tape->standing))
        return NULL;
    if (!(args[3] == Py_None ? play_all(tape, n) : play_some(tape, n, args[3])))
        return NULL;
    Py_RETURN_NONE;
}

/* ── what Python sees ────────────────────────────────────────────────────────────────────────────────────────── */

/* Copy the steps, and count the columns they name; 0 with an exception set if one is none. */
static int
copy_steps(Tape *tape, const char *words, const char *numbers)
{
    tape->words = PyMem_Malloc(tape->steps * STEP_WORDS * sizeof(int16_t) + 1);
    tape->numbers = PyMem_Malloc(tape->steps * sizeof(double) + 1);
    tape->places = PyMem_Calloc(tape->steps * MOST_COLUMNS + 1, sizeof(Place));
    if (tape->words == NULL || tape->numbers == NULL || tape->places == NULL)
        return PyErr_NoMemory() != NULL;
    memcpy(tape->words, words, tape->steps * STEP_WORDS * sizeof(int16_t));
    memcpy(tape->numbers, numbers, tape->steps * sizeof(double));
    int others = 0;
    for (Py_ssize_t at = 0; at < tape->steps; at++) {
        const int16_t *step = tape->words + at * STEP_WORDS;
        if (step[0] < 0 || step[0] >= N_STEPS) {
            PyErr_Format(PyExc_ValueError, "step %zd of the tape is none", at);
            return 0;
        }
        for (Py_ssize_t i = 0; STEPS[step[0]].kinds[i]; i++) {
            if (step[1 + i] < 0 && -step[1 + i] > tape->standing)
                tape->standing = -step[1 + i];
            if (step[1 + i] >= others)
                others = step[1 + i] + 1;
        }
    }
    tape->count = tape->standing + others;
    tape->columns = PyMem_Calloc(tape->count + 1, sizeof(Column));
    return tape->columns != NULL || PyErr_NoMemory() != NULL;
}

static PyObject *
make(PyTypeObject *type, PyObject *args, PyObject *named)
{
    const char *words, *numbers;
    Py_ssize_t words_size, numbers_size;
    (void)named;
    if (!PyArg_ParseTuple(args, "y#y#", &words, &words_size, &numbers, &numbers_size))
        return NULL;
    Py_ssize_t steps = words_size / (Py_ssize_t)(STEP_WORDS * sizeof(int16_t));
    if (numbers_size != steps * (Py_ssize_t)sizeof(double)) {
        PyErr_SetString(PyExc_ValueError, "the tape needs a number for each step");
        return NULL;
    }
    Tape *tape = (Tape *)type->tp_alloc(type, 0);
    if (tape == NULL)
        return NULL;
    tape->steps = steps;
    tape->n = -1;
    if (!copy_steps(tape, words, numbers))
        Py_CLEAR(tape);
    return (PyObject *)tape;
}

static void
forget(PyObject *self)
{
    Tape *tape = (Tape *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t i = 0; tape->columns != NULL && i < tape->count; i++)
        let_go(&tape->columns[i]);
    PyMem_Free(tape->columns);
    PyMem_Free(tape->places);
    PyMem_Free(tape->numbers);
    PyMem_Free(tape->words);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(tape_doc,
"Tape(steps, numbers)\n\n"
"Steps to be taken one after the other: bytes, eight int16 a step, which are its number in STEPS and the columns it takes;\n"
"`numbers` holds a float64 a step.");

static PyMethodDef tape_methods[] = {
    {"play", (PyCFunction)(void (*)(void))play, METH_FASTCALL, play_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tape_slots[] = {
    {Py_tp_doc, (void *)tape_doc},
    {Py_tp_new, make},
    {Py_tp_dealloc, forget},
    {Py_tp_methods, tape_methods},
    {0, NULL},
};

static PyType_Spec tape_spec = {
    .name = "rules._tape.Tape",
    .basicsize = sizeof(Tape),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tape_slots,
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

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_tape",
    .m_doc = "Steps over whole columns, many of them in one call.",
    .m_size = -1,
};

PyMODINIT_FUNC
PyInit__tape(void)
{
    choose_loops();
    PyObject *module = PyModule_Create(&definition), *steps = described(), *type = PyType_FromSpec(&tape_spec);
    if (module == NULL || steps == NULL || type == NULL || PyModule_AddObjectRef(module, "STEPS", steps) < 0 ||
        PyModule_AddObjectRef(module, "Tape", type) < 0 || PyModule_AddIntMacro(module, BLOCK) < 0 ||
        PyModule_AddIntMacro(module, LAYOUT) < 0)
        Py_CLEAR(module);
    Py_XDECREF(steps);
    Py_XDECREF(type);
    return module;
}
