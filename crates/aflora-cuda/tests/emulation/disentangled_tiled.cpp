// kernels/disentangled_tiled.cu on a CPU, for heads of SIZE, with POSITIONS or without.
#include "cuda.h"
#define BF16 1
#include "../../kernels/common.cuh"
// Its shared memory is the block's whole, which cuda.h has.
#undef __shared__
#define __shared__
#include "../../kernels/disentangled_tiled.cu"
#include "../../shim/tiled_shape.h"

constexpr aflora::TileShape SHAPE = {SIZE, POSITIONS == 1};
static_assert(ROWS == SHAPE.rows() && COLS == SHAPE.columns() && THREADS == SHAPE.threads(), "");
static_assert(sizeof(Tile) == SHAPE.shared(aflora::Tiled::Output), "");
static_assert(sizeof(Tile) + (HELD(false) ? 0 : sizeof(OwnTile)) == SHAPE.shared(aflora::Tiled::Queries), "");
static_assert(sizeof(Tile) + (HELD(true) ? 0 : sizeof(OwnTile)) == SHAPE.shared(aflora::Tiled::Keys), "");
static_assert(sizeof(Tile) + sizeof(OwnTile) <= sizeof shared, "");

// Where tests/disentangled/emulated.rs puts them.
struct Tensors {
    const T *query, *key, *value, *pos_key, *pos_query, *mask;
    const int *rows, *edges;
    T* out;
    float* lse;
    const T* dout;
    float* delta;
    T *dquery, *dkey, *dvalue, *dc2p, *dp2c, *queries, *keys;
};

struct Numbers {
    unsigned batch, heads, length, positions;
    float scale, keep;
    unsigned threshold, order;
};

// Gradients too, if there is one of the output.
extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, const Numbers* n) {
    Random where = {nullptr, nullptr, 0x0123456789abcdef, 8};
    Attention attention = {of->query, of->key,        of->value,         of->pos_key, of->pos_query,   of->mask, of->rows,
                           of->edges, int(n->length), int(n->positions), n->scale,    n->threshold, n->keep,  where};
    dim3 grid = {(n->length + ROWS - 1) / ROWS, n->heads, n->batch};
    run(grid, THREADS, n->order, [&] { disentangled_tiled(attention, of->out, of->lse); });
    if (!of->dout) return;
    Gradients queries = {of->out, of->dout, of->lse, of->delta, of->dquery, nullptr, of->dc2p, of->queries};
    Gradients keys = {of->out, of->dout, of->lse, of->delta, of->dkey, of->dvalue, of->dp2c, of->keys};
    run(grid, THREADS, n->order, [&] { disentangled_tiled_queries(attention, queries); });
    run(grid, THREADS, n->order, [&] { disentangled_tiled_keys(attention, keys); });
}
