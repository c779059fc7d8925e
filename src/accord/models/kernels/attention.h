// What both kernels of attention share: how a pack of prompt trees is described, who does which part, and a row of its softmax.
#pragma once

#include "vector.h"

// Tokens that see a prompt and, of their own, those up to themselves: a response, or a prompt (which sees no other).
// Places are of the pack; the place of a key in prompt + own is its position. The first segment of a tree is its prompt,
// which the others read; none is empty.
struct Segment { int64_t prompt, prompt_size, own, own_size; };
struct Tree { int64_t start, size, first, last; };  // its tokens; its segments first <= s < last

// H query heads, G key heads, R = H / G of the former read one of the latter; D and W, widths of keys and values;
// window 0: none.
struct Heads { int64_t H, G, D, W, window; float scaling; int threads; };

// What one thread works on at a time: a key head of a tree with its query heads, or, where that is too few, with one.
struct Items {
    int64_t split, count;
    Items(int64_t trees, const Heads& is) : split(trees * is.G < 4 * is.threads ? is.H / is.G : 1), count(trees * is.G * split) {}
};

static inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Of one query, in place: e^(x - largest x) of x = score * scaling over the keys start <= j < stop, 0 in the rest of the
// registers these are in; returns the sum.
static inline float powers(float* score, int64_t start, int64_t stop, float scaling) {
    const int64_t first = start / WIDTH * WIDTH;
    const int64_t last = (stop - 1) / WIDTH * WIDTH;
    const ivec number = counted();
    store(score + first, number < int32_t(start - first) ? vec{} - INFINITY : load(score + first));
    store(score + last, number < int32_t(stop - last) ? load(score + last) : vec{} - INFINITY);
    vec most = load(score + first) * scaling, total{};
    for (int64_t j = first; j < stop; j += WIDTH) { vec x = load(score + j) * scaling; most = x > most ? x : most; }
    const float top = largest(most);
    for (int64_t j = first; j < stop; j += WIDTH) {
        vec x = exponential(load(score + j) * scaling - top);
        total += x;
        store(score + j, x);
    }
    return sum(total);
}

// to (rows, width) = parts (rows, count, width) added up in their order.
template <typename T> void add_parts(const float* parts, T* to, int64_t rows, int64_t count, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t d = 0; d < width; d += WIDTH) {
            vec y{};
            for (int64_t i = 0; i < count; i++) y += load(parts + (row * count + i) * width + d);
            store(to + row * width + d, y);
        }
}
