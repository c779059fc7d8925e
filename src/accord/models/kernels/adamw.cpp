// The norm of all gradients, and a step of AdamW (Loshchilov & Hutter 2019) with clipping in it: each in one pass over
// memory, which is all that they wait for.

#include "vector.h"

namespace {

// A parameter with its gradient and moments; the corrections of both moments at its step.
struct Parameter {
    float* weight;
    const float* gradient;
    float *mean, *square;
    int64_t size;
    float rate, root;  // learning rate / (1 - beta1^t), sqrt(1 - beta2^t)
};
struct Settings { float scale, shrink, beta1, beta2, eps; };  // scale of gradients; 1 - learning rate * weight decay

constexpr int64_t CHUNK = 1 << 15;

// Calls what(parameter, begin, end, number of the chunk) for all of them; by whoever is free.
template <typename Do> void chunks(const Parameter* all, int64_t count, int threads, Do what) {
    std::vector<int64_t> first(count + 1, 0);  // chunk of each parameter
    for (int64_t i = 0; i < count; i++) first[i + 1] = first[i] + (all[i].size + CHUNK - 1) / CHUNK;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4)
    for (int64_t c = 0; c < first[count]; c++) {
        int64_t low = 0, high = count;  // the last parameter that begins at or before chunk c, and has one
        while (high - low > 1) { int64_t middle = (low + high) / 2; (first[middle] <= c ? low : high) = middle; }
        int64_t begin = (c - first[low]) * CHUNK, end = begin + CHUNK < all[low].size ? begin + CHUNK : all[low].size;
        what(all[low], begin, end, c);
    }
}

double squares(const float* x, int64_t size) {
    double total = 0;
    int64_t i = 0;
    for (; i + 64 * WIDTH <= size; i += 64 * WIDTH) {
        vec some[4] = {};
        for (int64_t j = 0; j < 64; j += 4)
            for (int k = 0; k < 4; k++) { vec y = load(x + i + (j + k) * WIDTH); some[k] += y * y; }
        total += sum((some[0] + some[1]) + (some[2] + some[3]));
    }
    for (; i < size; i++) total += double(x[i]) * x[i];
    return total;
}

template <typename V> inline V root(V x) {
    V y;
    for (int i = 0; i < int(sizeof(V) / sizeof(float)); i++) y[i] = std::sqrt(x[i]);
    return y;
}

template <typename V> inline void one(const Parameter& p, const Settings& s, V& w, V g, V& m, V& v) {
    g *= s.scale;
    m += (1 - s.beta1) * (g - m);
    v = s.beta2 * v + (1 - s.beta2) * (g * g);
    w = w * s.shrink - p.rate * (m / (root(v) / p.root + s.eps));
}

}  // namespace

extern "C" {

// Sum of the squares of all gradients; the same for any number of threads.
double squares_f32(const Parameter* all, int64_t count, int threads) {
    int64_t most = 0;
    for (int64_t i = 0; i < count; i++) most += (all[i].size + CHUNK - 1) / CHUNK;
    std::vector<double> parts(most);
    chunks(all, count, threads, [&](const Parameter& p, int64_t begin, int64_t end, int64_t c) {
        parts[c] = squares(p.gradient + begin, end - begin);
    });
    double total = 0;
    for (double part : parts) total += part;
    return total;
}

void adamw_f32(const Parameter* all, int64_t count, const Settings* settings, int threads) {
    const Settings s = *settings;
    chunks(all, count, threads, [&](const Parameter& p, int64_t begin, int64_t end, int64_t) {
        int64_t i = begin;
        for (; i + WIDTH <= end; i += WIDTH) {
            vec w = load(p.weight + i), m = load(p.mean + i), v = load(p.square + i);
            one(p, s, w, load(p.gradient + i), m, v);
            store(p.weight + i, w), store(p.mean + i, m), store(p.square + i, v);
        }
        for (typedef float single __attribute__((vector_size(4))); i < end; i++) {
            single w{p.weight[i]}, m{p.mean[i]}, v{p.square[i]};
            one(p, s, w, single{p.gradient[i]}, m, v);
            p.weight[i] = w[0], p.mean[i] = m[0], p.square[i] = v[0];
        }
    });
}
}
