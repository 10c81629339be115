/* Numbers out of many dicts of one shape, into columns. No Python code runs here, so borrowed references stay good.
 *
 * The compiled twin of `unbox_in_python` in feeds/unbox.py; both give the same columns bit for bit. A whole market
 * comes as 5,500 dicts of some twenty entries, most of them not in any cache, so what costs is waiting for memory:
 * ticks are taken some at a time, their tables asked for ahead, then their values.
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
    TOGETHER = 16,    /* ticks whose values are asked for before the first of them is read */
    AHEAD = 8,        /* ticks between asking for a table and searching it */
    MOST_FIELDS = 16, /* of one call */
    MOST_WIDE = 1024, /* so that what they take together is a number of bytes */
    TABLE_HEAD = 64,  /* bytes of a table of up to 21 entries before the first of them */
    ENTRY = 16,
    LINE = 64,
    LAYOUT = 1 /* what feeds/unbox.py must have been written for */
};

typedef struct {
    PyObject *name;
    Py_ssize_t width, row, place;
    double least, most, grid;
} Field;

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
static int
number_of(PyObject *value, double *number)
{
    if (PyFloat_Check(value)) {
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

/* Round to 1/grid, 0 becoming NaN; what is no price has grid 0 and stays. Half to even, as np.rint. */
static double
on_grid(double number, double grid)
{
    static const double SHIFT = 6755399441055744.0; /* 1.5 * 2**52 leaves no bit for a fraction, up to 2**51 */
    if (grid == 0.0)
        return number;
    Stored shifted = number * grid + SHIFT;
    double rounded = (shifted - SHIFT) / grid;
    return rounded == 0.0 ? NAN : rounded;
}

/* Tell whether a key is this name. Only exact strings are compared, so no Python code runs. */
static int
is_name(PyObject *key, PyObject *name)
{
    return key == name || (PyUnicode_CheckExact(key) && PyUnicode_Compare(key, name) == 0);
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
            if (is_name(key, fields[i].name))
                fields[i].place = place;
}

/* Return the value of a field, borrowed, or NULL. The place is a guess, held against its bounds by PyDict_Next and here
 * against the key; where it is right it takes half the time of a search. A search by hash might run the code of a key
 * that is no plain string, under which borrowed references could go: elsewhere the entries are walked through. */
static PyObject *
value_of(PyObject *tick, const Field *field)
{
    PyObject *key, *value;
    Py_ssize_t place = field->place;
    if (PyDict_Next(tick, &place, &key, &value) && is_name(key, field->name))
        return value;
    for (place = 0; PyDict_Next(tick, &place, &key, &value);)
        if (is_name(key, field->name))
            return value;
    return NULL;
}

/* Find the values of `count` ticks of the `left` from here on; 0 if one is no dict or lacks a field. */
static int
find(PyObject **ticks, Py_ssize_t count, Py_ssize_t left, const Field *fields, Py_ssize_t n_fields,
     PyObject *values[TOGETHER][MOST_FIELDS])
{
    Py_ssize_t last = 0;
    for (Py_ssize_t field = 0; field < n_fields; field++)
        last = fields[field].place > last ? fields[field].place : last;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i + 2 * AHEAD < left)
            PREFETCH(ticks[i + 2 * AHEAD]);
        if (i + AHEAD < left)
            ask_for(ticks[i + AHEAD], TABLE_HEAD + (last + 1) * ENTRY);
        if (!PyDict_CheckExact(ticks[i]))
            return 0;
        for (Py_ssize_t field = 0; field < n_fields; field++) {
            PyObject *value = value_of(ticks[i], &fields[field]);
            if (value == NULL)
                return 0;
            PREFETCH(value);
            values[i][field] = value;
        }
    }
    return 1;
}

/* Write a value's number, or the numbers of a list, down a column of `out`; 0 if it is not what the field is. */
static int
put(PyObject *value, const Field *field, double *out, Py_ssize_t stride)
{
    for (Py_ssize_t level = 0; level < field->width; level++) {
        double number;
        PyObject *one = value;
        if (field->width > 1) {
            if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) != field->width)
                return 0;
            one = PyList_GET_ITEM(value, level);
        }
        /* NaN compares false */
        if (!number_of(one, &number) || !(number >= field->least) || !(number <= field->most))
            return 0;
        out[(field->row + level) * stride] = on_grid(number, field->grid);
    }
    return 1;
}

/* Take all ticks; 0 if one is irregular. */
static int
take(PyObject **ticks, Py_ssize_t n, const Field *fields, Py_ssize_t n_fields, double *out)
{
    PyObject *values[TOGETHER][MOST_FIELDS];
    for (Py_ssize_t start = 0; start < n; start += TOGETHER) {
        Py_ssize_t count = n - start < TOGETHER ? n - start : TOGETHER;
        if (!find(ticks + start, count, n - start, fields, n_fields, values))
            return 0;
        for (Py_ssize_t i = 0; i < count; i++)
            for (Py_ssize_t field = 0; field < n_fields; field++)
                if (!put(values[i][field], &fields[field], out + start + i, n))
                    return 0;
    }
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

/* Tell whether two objects are one, or the same text: of a push decoded anew the keys are other objects each time. */
static inline int
is_same(PyObject *a, PyObject *b)
{
    return a == b || (PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b) && PyUnicode_GET_LENGTH(a) == PyUnicode_GET_LENGTH(b) &&
                      PyUnicode_KIND(a) == PyUnicode_KIND(b) &&
                      !memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)PyUnicode_GET_LENGTH(a) * (size_t)PyUnicode_KIND(a)));
}

PyDoc_STRVAR(same_keys_doc,
"same_keys(payload, symbols) -> bool\n\n"
"Tell whether the keys of a dict are those of a tuple, in order. What is no text must be the very object.");

static PyObject *
same_keys(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    PyObject *key, *value;
    Py_ssize_t next = 0, n = 0;
    (void)module;
    if (given != 2 || !PyDict_CheckExact(args[0]) || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "same_keys takes a dict and a tuple");
        return NULL;
    }
    if (PyDict_Size(args[0]) != PyTuple_GET_SIZE(args[1]))
        Py_RETURN_FALSE;
    while (PyDict_Next(args[0], &next, &key, &value))
        if (!is_same(key, PyTuple_GET_ITEM(args[1], n++)))
            Py_RETURN_FALSE;
    Py_RETURN_TRUE;
}

static PyMethodDef methods[] = {
    {"unbox", unbox, METH_VARARGS, unbox_doc},
    {"same_keys", (PyCFunction)(void (*)(void))same_keys, METH_FASTCALL, same_keys_doc},
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
