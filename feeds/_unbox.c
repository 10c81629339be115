/* Numbers out of many dicts of one shape, into columns. No Python code runs here, so borrowed references stay good.
 *
 * The compiled twin of `unbox_in_python` in feeds/unbox.py; both give the same columns bit for bit. A whole market
 * comes as 5,500 dicts of some twenty entries, most of them not in any cache, so what costs is waiting for memory:
 * whatever is read was asked for some ticks before.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif

enum {
    BETWEEN = 4,      /* ticks between asking for something and reading it */
    FAR = 8,          /* keys between asking for one and comparing it */
    MOST_FIELDS = 16, /* of one call */
    MOST_WIDE = 1024, /* so that what they take together is a number of bytes */
    TABLE_HEAD = 64,  /* bytes of a table of up to 21 entries before the first of them */
    ENTRY = 16,
    LINE = 64,
    LAYOUT = 2 /* what feeds/unbox.py must have been written for */
};

typedef struct {
    PyObject *name, *seen; /* as it is asked for, and the key of the first tick: most often that of them all */
    Py_ssize_t width, row, place;
    double least, most, grid;
} Field;

typedef struct {
    PyObject *key, *value;
} Entry;

/* Ask for what is read of this dict's table, which may begin anywhere in a cache line. Nothing more: of the vendor's 21
 * entries the first ten are looked at, and most of the time is waiting for lines. */
static void
ask_for(PyObject *tick, Py_ssize_t bytes)
{
    if (PyDict_CheckExact(tick)) {
        const char *table = (const char *)((PyDictObject *)tick)->ma_keys;
        for (Py_ssize_t at = 0; at < bytes + LINE; at += LINE)
            PREFETCH(table + at);
    }
}

/* Write the value of a float or of an int; 0 for anything else. */
static inline int
number_of(PyObject *value, double *number)
{
    if (PyFloat_CheckExact(value) || (!PyLong_CheckExact(value) && PyFloat_Check(value))) {
        *number = PyFloat_AS_DOUBLE(value);
        return 1;
    }
    if (!PyLong_CheckExact(value) && !PyBool_Check(value))
        return 0; /* one of another class may convert itself in its own way */
    int overflow;
    long long whole = PyLong_AsLongLongAndOverflow(value, &overflow); /* an eighth of PyLong_AsDouble, for times */
    *number = overflow ? PyLong_AsDouble(value) : (double)whole;
    if (overflow && PyErr_Occurred()) {
        PyErr_Clear(); /* too large for a float */
        return 0;
    }
    return 1;
}

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
typedef double Stored;
#else
typedef volatile double Stored; /* a register of more bits would keep the fraction */
#endif

/* Round to 1/grid, 0 becoming NaN. Half to even, as np.rint. */
static inline double
on_grid(double number, double grid)
{
    static const double SHIFT = 6755399441055744.0; /* 1.5 * 2**52 leaves no bit for a fraction, up to 2**51 */
    Stored shifted = number * grid + SHIFT;
    double rounded = (shifted - SHIFT) / grid;
    return rounded == 0.0 ? NAN : rounded;
}

/* Tell whether two objects are one, or the same text: of what is decoded anew the keys are other objects each time. Only
 * exact strings are compared, so no Python code runs. */
static inline int
is_same(PyObject *a, PyObject *b)
{
    return a == b || (PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b) && PyUnicode_GET_LENGTH(a) == PyUnicode_GET_LENGTH(b) &&
                      PyUnicode_KIND(a) == PyUnicode_KIND(b) &&
                      !memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)PyUnicode_GET_LENGTH(a) * (size_t)PyUnicode_KIND(a)));
}

/* Note where the fields stand in the first tick: dicts of one shape hold a key in the same place. */
static void
learn(PyObject *tick, Field *fields, Py_ssize_t count)
{
    PyObject *key, *value;
    if (!PyDict_CheckExact(tick))
        return;
    for (Py_ssize_t place = 0, next = 0; PyDict_Next(tick, &next, &key, &value); place = next)
        for (Py_ssize_t i = 0; i < count; i++)
            if (is_same(key, fields[i].name)) {
                fields[i].place = place;
                fields[i].seen = key;
            }
}

/* Guess where a tick has its fields, and ask for what is there; 0 if it is no dict. */
static int
guess(PyObject *tick, const Field *fields, Py_ssize_t n_fields, Entry *entries)
{
    if (!PyDict_CheckExact(tick))
        return 0;
    for (Py_ssize_t field = 0; field < n_fields; field++) {
        Py_ssize_t place = fields[field].place;
        Entry *entry = &entries[field];
        if (!PyDict_Next(tick, &place, &entry->key, &entry->value))
            entry->key = entry->value = NULL;
        else if (entry->key != fields[field].seen)
            PREFETCH(entry->key);
        PREFETCH(entry->value);
    }
    return 1;
}

/* Return the value of a field, borrowed, or NULL. The place was a guess, held against the dict's bounds by PyDict_Next
 * and here against the key; where it is right it takes half the time of a search. A search by hash might run the code of
 * a key that is no plain string, under which borrowed references could go: elsewhere the entries are walked through. */
static PyObject *
value_of(PyObject *tick, const Field *field, const Entry *guessed)
{
    PyObject *key, *value;
    if (guessed->key == field->seen || (guessed->key != NULL && is_same(guessed->key, field->name)))
        return guessed->value;
    for (Py_ssize_t place = 0; PyDict_Next(tick, &place, &key, &value);)
        if (is_same(key, field->name))
            return value;
    return NULL;
}

/* Write a value's number, or the numbers of a list, down a column of `out`; 0 if there are none. */
static inline int
put(PyObject *value, const Field *field, double *out, Py_ssize_t stride)
{
    out += field->row * stride;
    if (field->width == 1)
        return number_of(value, out);
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) != field->width)
        return 0;
    for (Py_ssize_t level = 0; level < field->width; level++)
        if (!number_of(PyList_GET_ITEM(value, level), out + level * stride))
            return 0;
    return 1;
}

/* Hold the numbers of one field against its bounds, and round prices; 0 if one is out of them. Column by column: the
 * compiler does several at once. */
static int
finish(const Field *field, double *numbers, Py_ssize_t count)
{
    const double least = field->least, most = field->most, grid = field->grid;
    int fit = 1;
    for (Py_ssize_t i = 0; i < count; i++)
        fit &= (numbers[i] >= least) & (numbers[i] <= most); /* NaN compares false */
    if (fit && grid != 0.0)
        for (Py_ssize_t i = 0; i < count; i++)
            numbers[i] = on_grid(numbers[i], grid);
    return fit;
}

/* Take all ticks; 0 if one is irregular. Each is come by four times, and all but the last only ask for what the next will
 * read: the dict, its table, its values. */
static int
take(PyObject **ticks, Py_ssize_t n, const Field *fields, Py_ssize_t n_fields, double *out)
{
    Entry entries[BETWEEN][MOST_FIELDS];
    Py_ssize_t last = 0;
    for (Py_ssize_t field = 0; field < n_fields; field++)
        last = fields[field].place > last ? fields[field].place : last;
    for (Py_ssize_t dict = 0; dict < n + 3 * BETWEEN; dict++) {
        Py_ssize_t table = dict - BETWEEN, found = table - BETWEEN, read = found - BETWEEN;
        if (dict < n)
            PREFETCH(ticks[dict]);
        if (table >= 0 && table < n)
            ask_for(ticks[table], TABLE_HEAD + (last + 1) * ENTRY);
        for (Py_ssize_t field = 0; read >= 0 && field < n_fields; field++) {
            PyObject *value = value_of(ticks[read], &fields[field], &entries[read % BETWEEN][field]);
            if (value == NULL || !put(value, &fields[field], out + read, n))
                return 0;
        }
        if (found >= 0 && found < n && !guess(ticks[found], fields, n_fields, entries[found % BETWEEN]))
            return 0;
    }
    for (Py_ssize_t field = 0; field < n_fields; field++)
        if (!finish(&fields[field], out + fields[field].row * n, fields[field].width * n))
            return 0;
    return 1;
}

/* Read the tuple of fields; returns the rows they take together, -1 with an exception set. */
static Py_ssize_t
read_fields(PyObject *described, Field *fields)
{
    Py_ssize_t rows = 0;
    if (PyTuple_GET_SIZE(described) > MOST_FIELDS) {
        PyErr_Format(PyExc_ValueError, "%zd fields; %d are the most", PyTuple_GET_SIZE(described), MOST_FIELDS);
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(described); i++) {
        Field *field = &fields[i];
        if (!PyTuple_Check(PyTuple_GET_ITEM(described, i))) {
            PyErr_SetString(PyExc_TypeError, "a field is a tuple (name, width, least, most, grid)");
            return -1;
        }
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(described, i), "Unddd", &field->name, &field->width, &field->least,
                              &field->most, &field->grid))
            return -1;
        if (field->width < 1 || field->width > MOST_WIDE) {
            PyErr_Format(PyExc_ValueError, "a field is 1 to %d wide", MOST_WIDE);
            return -1;
        }
        field->row = rows;
        field->place = 0;
        field->seen = field->name;
        rows += field->width;
    }
    return rows;
}

PyDoc_STRVAR(unbox_doc,
"unbox(ticks, fields, out) -> bool\n\n"
"As unbox_in_python of feeds/unbox.py. Raises ValueError where `out` does not fit ticks and fields.");

static PyObject *
unbox(PyObject *module, PyObject *args)
{
    PyObject *ticks, *described;
    Field fields[MOST_FIELDS];
    Py_buffer out;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!w*", &PyList_Type, &ticks, &PyTuple_Type, &described, &out))
        return NULL;
    Py_ssize_t n = PyList_GET_SIZE(ticks), n_fields = PyTuple_GET_SIZE(described), rows = read_fields(described, fields);
    PyObject *result = NULL;
    if (rows >= 0 && out.len != rows * n * (Py_ssize_t)sizeof(double))
        PyErr_SetString(PyExc_ValueError, "the columns do not fit ticks and fields");
    else if (rows >= 0) {
        if (n > 0)
            learn(PyList_GET_ITEM(ticks, 0), fields, n_fields);
        result = PyBool_FromLong(take(&PyList_GET_ITEM(ticks, 0), n, fields, n_fields, out.buf));
    }
    PyBuffer_Release(&out);
    return result;
}

/* Ask for a string, which is short, and may lie across the end of a line. */
static inline void
ask_for_text(PyObject *text)
{
    PREFETCH(text);
    PREFETCH((char *)text + LINE - 1);
}

PyDoc_STRVAR(values_of_doc,
"values_of(payload, symbols) -> list | None\n\n"
"The values of a dict whose keys are those of a tuple, in order; None of another. What is no text must be the very object.");

static PyObject *
values_of(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    PyObject *key, *value;
    Py_ssize_t next = 0, ahead = 0;
    (void)module;
    if (given != 2 || !PyDict_CheckExact(args[0]) || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "values_of takes a dict and a tuple");
        return NULL;
    }
    PyObject *payload = args[0], *symbols = args[1];
    Py_ssize_t n = PyTuple_GET_SIZE(symbols);
    if (PyDict_Size(payload) != n)
        Py_RETURN_NONE;
    PyObject *values = PyList_New(n);
    for (Py_ssize_t far = 0; values != NULL && far < n + FAR; far++) {
        Py_ssize_t i = far - FAR;
        if (far < n && PyDict_Next(payload, &ahead, &key, &value)) {
            ask_for_text(key);
            ask_for_text(PyTuple_GET_ITEM(symbols, far));
            PREFETCH(value);
        }
        if (i < 0)
            continue;
        if (!PyDict_Next(payload, &next, &key, &value) || !is_same(key, PyTuple_GET_ITEM(symbols, i))) {
            Py_DECREF(values);
            Py_RETURN_NONE;
        }
        Py_INCREF(value);
        PyList_SET_ITEM(values, i, value);
    }
    return values;
}

static PyMethodDef methods[] = {
    {"unbox", unbox, METH_VARARGS, unbox_doc},
    {"values_of", (PyCFunction)(void (*)(void))values_of, METH_FASTCALL, values_of_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_unbox",
    .m_doc = "Numbers out of many dicts of one shape, into columns.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__unbox(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntMacro(module, LAYOUT) < 0)
        Py_CLEAR(module);
    return module;
}
