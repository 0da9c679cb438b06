/* The arithmetic of a decision, of demand and of a regression, and the hashes of a prompt, each in
   one call.

   What is computed, and why, stands in Python, in the plain twin of each function; here it is done
   again, operation by operation, so that both agree to the last bits. Constants and settings come
   from there too. Nothing here allocates, keeps anything, or knows Python: every call gets one
   struct of pointers to arrays that its caller owns (lodestar_extproc/kernel/structures.py), or the
   pointers alone.

   It is compiled without fused or reordered arithmetic (hatch_build.py). */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* The places of columns in a snapshot: `endpoint.FleetSnapshot`. */
enum column {
    PREFILL_REQUESTS,
    PREFILL_UNCACHED_TOKENS,
    PREFILL_PROMPT_TOKENS,
    PREFILL_PAIRS,
    HEAD_UNCACHED_TOKENS,
    HEAD_DISPATCHED_AT_S,
    LAST_FIRST_TOKEN_AT_S,
    DECODE_REQUESTS,
    DECODE_PROMPT_TOKENS,
    RUNNING_REQUESTS,
    WAITING_REQUESTS,
    KV_USAGE_RATIO,
    SCRAPED_AT_S,
    KV_CAPACITY_TOKENS,
    TOKEN_BUDGET,
    DECODE_STARTED_S,
    DECODE_TOKENS_PER_S
};

/* The places of features in a row, F for short: `features.Feature`. */
enum feature {
    F_CONSTANT,
    F_WORK_KTOKENS,
    F_STEPS,
    F_STEPS_X_DECODES,
    F_STEPS_X_CONTEXT,
    F_ATTENTION_PAIRS,
    F_KV_DEFICIT_KTOKENS,
    F_DECODE_LOAD,
    N_ENGINE,
    F_PROMPT_TOKENS = N_ENGINE,
    F_UNCACHED_TOKENS,
    F_HIT_RATIO,
    F_PREFILL_REQUESTS,
    F_DECODE_REQUESTS,
    F_QUEUED_UNCACHED_TOKENS,
    F_QUEUED_PROMPT_TOKENS,
    F_DECODE_CONTEXT_TOKENS,
    F_RUNNING_REQUESTS,
    F_WAITING_REQUESTS,
    F_KV_USAGE_RATIO,
    N_FEATURES
};

/* What is known of each candidate beside its columns: rows of `given`. */
enum given { MATCHED_TOKENS, PREFILL_S_PER_KTOKEN, SERVICE_RATIO, ASKED_AGAIN_RATIO, MEMORY_RATIO,
             PENALTY_S };

/* What is told of each candidate: rows of `told`. */
enum told { TTFT_S, SERVICE_S, BACKLOG_S, S_PER_KTOKEN, COST_S };

/* `structures.Constants`. */
struct constants {
    double scales[N_ENGINE];
    double api_delay_s;
    double min_prefill_s_per_token;
    double min_step_tokens;
    double max_head_progress_ratio;
    double kv_usable_ratio;
    double min_s_per_ktoken;
    double min_ttft_s;
    double max_utilisation;
    double max_memory_used;
    double own_share;
    double max_spared_s;
};

/* `structures.WeighingCall`. Arrays are [rows][n] unless it is said otherwise. */
struct weighing {
    const struct constants *constants;
    const double *values;      /* the snapshot's columns */
    const double *given;
    const double *theta;       /* [n][N_ENGINE], coefficients */
    const double *range;       /* [2][N_FEATURES], lowest and highest that may be believed */
    const uint64_t *ties;      /* [n], drawn */
    double *told;
    double *row;               /* [N_FEATURES], of `row_of`: the first in order */
    int64_t *order;            /* [n], by rising cost, ties as drawn */
    int64_t *scratch;          /* [n] */
    int64_t n;
    int64_t row_of;
    double at_s;
    double prompt_tokens;
    double arrivals_per_s;
    double externality_weight;
    double decode_weight;
    double eviction_weight;
    double memory_weight_s;
    double backlog_limit_s;    /* infinite for none */
    double cascade_limit;      /* 1 - 1/g; 0 where no cache is to be spared */
    int64_t weighs_others;     /* 0: the cost is one's own TTFT */
    int64_t is_finite;         /* told: every cost is a number; else there is no order and no row */
    int64_t is_in_range;       /* told: of the first in order */
};

/* `structures.MemoryUse`. */
struct memory_use {
    const double *values;      /* the snapshot's columns */
    const double *mean;        /* [n], until it was last seen */
    const double *seen_at_s;   /* [n] */
    double *told;              /* [n] */
    int64_t n;
    double at_s;
    double memory_s;           /* over how long it is averaged */
};

/* `structures.Equations`: of one regressor. */
struct equations {
    double *rows;              /* [d][d + 1], Gram matrix and moment */
    double *theta;             /* [d] */
    const double *sample;      /* [d] */
    double *pulled;            /* [d][d + 1], scratch; used where there is a pull */
    const struct equations *shrink_to;  /* or NULL */
    int64_t d;
    int64_t sweeps;
    double forgetting;
    double shrinkage_samples;
    double n_samples;
    double empty;              /* a smaller curvature is rounding */
    double min_energy;         /* of a feature, in the pull */
};

/* As numpy has them: the first two pass on what is no number, the last does not. */
static double least(double a, double b) { return a < b || isnan(a) ? a : b; }
static double most(double a, double b) { return a > b || isnan(a) ? a : b; }
static double most_known(double a, double b) { return isnan(a) || b > a ? b : a; }
static double least_known(double a, double b) { return isnan(a) || b < a ? b : a; }

/* As libm's, which is a call where the processor is only known to be an x86-64. */
static double whole_steps(double x)
{
    if (!(fabs(x) < 1e15))
        return ceil(x);
    double cut = (double)(int64_t)x;
    return cut < x ? cut + 1.0 : cut;
}

/* -- features: the plain twin is features.py ------------------------------------------------- */

struct candidate {
    double uncached, pairs, queued, context, held;
};

static double column(const double *values, int64_t n, enum column place, int64_t i)
{
    return values[place * n + i];
}

static double context_tokens(const double *values, int64_t n, double at_s, int64_t i)
{
    double decoding_s = column(values, n, DECODE_REQUESTS, i) * at_s
                        - column(values, n, DECODE_STARTED_S, i);
    return column(values, n, DECODE_PROMPT_TOKENS, i)
           + column(values, n, DECODE_TOKENS_PER_S, i) * most(0.0, decoding_s);
}

static double memory_used_ratio(const double *values, int64_t n, double held, int64_t i)
{
    double capacity = column(values, n, KV_CAPACITY_TOKENS, i);
    double waiting = column(values, n, PREFILL_UNCACHED_TOKENS, i);
    double reported = column(values, n, KV_USAGE_RATIO, i);
    return least_known(held / capacity, reported + waiting / capacity);
}

static double queued_tokens(const struct weighing *w, int64_t i)
{
    const struct constants *c = w->constants;
    double rate = w->given[PREFILL_S_PER_KTOKEN * w->n + i];
    double since_s = most(column(w->values, w->n, LAST_FIRST_TOKEN_AT_S, i),
                          column(w->values, w->n, HEAD_DISPATCHED_AT_S, i) + c->api_delay_s);
    double done = (w->at_s - since_s) / most(rate / 1e3, c->min_prefill_s_per_token);
    done = least(done, c->max_head_progress_ratio * column(w->values, w->n, HEAD_UNCACHED_TOKENS, i));
    return most(column(w->values, w->n, PREFILL_UNCACHED_TOKENS, i) - most(done, 0.0), 0.0);
}

static struct candidate candidate_of(const struct weighing *w, int64_t i)
{
    struct candidate it;
    it.uncached = most(w->prompt_tokens - w->given[MATCHED_TOKENS * w->n + i], 1.0);
    it.pairs = it.uncached * (w->prompt_tokens - 0.5 * it.uncached);
    it.queued = queued_tokens(w, i);
    it.context = context_tokens(w->values, w->n, w->at_s, i);
    it.held = it.context + column(w->values, w->n, PREFILL_PROMPT_TOKENS, i);
    return it;
}

static void fill_engine(const struct weighing *w, const struct candidate *it, int64_t i, double *f)
{
    const struct constants *c = w->constants;
    double decodes = column(w->values, w->n, DECODE_REQUESTS, i);
    double prefills = column(w->values, w->n, PREFILL_REQUESTS, i);
    double work = it->queued + it->uncached;
    double fluid = work / most(column(w->values, w->n, TOKEN_BUDGET, i) - decodes,
                               c->min_step_tokens);
    double steps = whole_steps(fluid) + fluid + 1.0;
    double deficit = it->held + w->prompt_tokens
                     - c->kv_usable_ratio * column(w->values, w->n, KV_CAPACITY_TOKENS, i);
    f[F_CONSTANT] = 1.0;
    f[F_WORK_KTOKENS] = work;
    f[F_STEPS] = steps;
    f[F_STEPS_X_DECODES] = steps * decodes;
    f[F_STEPS_X_CONTEXT] = steps * it->context;
    f[F_ATTENTION_PAIRS] = it->pairs + column(w->values, w->n, PREFILL_PAIRS, i);
    f[F_KV_DEFICIT_KTOKENS] = most_known(deficit, 0.0);
    f[F_DECODE_LOAD] = least(prefills + decodes, 1.0) + decodes / 1e2;
    for (int k = 0; k < N_ENGINE; k++)
        f[k] *= c->scales[k];
}

static double known_or(double reported, double counted)
{
    return isnan(reported) ? counted : reported;
}

static void fill_loads(const struct weighing *w, const struct candidate *it, int64_t i, double *f)
{
    double decodes = column(w->values, w->n, DECODE_REQUESTS, i);
    double prefills = column(w->values, w->n, PREFILL_REQUESTS, i);
    double held_ratio = it->held / column(w->values, w->n, KV_CAPACITY_TOKENS, i);
    f[F_PROMPT_TOKENS] = w->prompt_tokens;
    f[F_UNCACHED_TOKENS] = it->uncached;
    f[F_HIT_RATIO] = 1.0 - it->uncached / (w->prompt_tokens > 1.0 ? w->prompt_tokens : 1.0);
    f[F_PREFILL_REQUESTS] = prefills;
    f[F_DECODE_REQUESTS] = decodes;
    f[F_QUEUED_UNCACHED_TOKENS] = it->queued;
    f[F_QUEUED_PROMPT_TOKENS] = column(w->values, w->n, PREFILL_PROMPT_TOKENS, i);
    f[F_DECODE_CONTEXT_TOKENS] = it->context;
    f[F_RUNNING_REQUESTS] = known_or(column(w->values, w->n, RUNNING_REQUESTS, i), decodes);
    f[F_WAITING_REQUESTS] = known_or(column(w->values, w->n, WAITING_REQUESTS, i), prefills);
    f[F_KV_USAGE_RATIO] = known_or(column(w->values, w->n, KV_USAGE_RATIO, i),
                           least_known(most_known(held_ratio, 0.0), 1.0));
}

/* -- prediction: the plain twin is EnginePredictor.predict ------------------------------------ */

/* In the order in which numpy's libraries add eight products. */
static double product(const double *a, const double *b)
{
    double even = a[0] * b[0] + a[2] * b[2];
    double odd = a[1] * b[1] + a[3] * b[3];
    even += a[4] * b[4] + a[6] * b[6];
    odd += a[5] * b[5] + a[7] * b[7];
    return even + odd;
}

static void predict(const struct weighing *w, int64_t i)
{
    const struct constants *c = w->constants;
    const double *theta = w->theta + i * N_ENGINE;
    double whole[N_ENGINE], own[N_ENGINE], per_ktoken[N_ENGINE] = {0.0};
    struct candidate it = candidate_of(w, i);
    fill_engine(w, &it, i, whole);
    per_ktoken[F_WORK_KTOKENS] = 1.0;
    per_ktoken[F_STEPS] = 1e3 / column(w->values, w->n, TOKEN_BUDGET, i);
    per_ktoken[F_STEPS_X_CONTEXT] = per_ktoken[F_STEPS] * (it.context / 1e5);
    for (int k = 0; k < N_ENGINE; k++)
        own[k] = per_ktoken[k] * (it.uncached / 1e3);
    own[F_ATTENTION_PAIRS] = it.pairs / 1e7;
    double service_s = product(own, theta);
    double ttft_s = most(product(whole, theta), c->min_ttft_s);
    w->told[TTFT_S * w->n + i] = ttft_s;
    w->told[SERVICE_S * w->n + i] = service_s;
    w->told[BACKLOG_S * w->n + i] = most(0.0, ttft_s - service_s - theta[F_CONSTANT]);
    w->told[S_PER_KTOKEN * w->n + i] = most(product(per_ktoken, theta), c->min_s_per_ktoken);
}

/* -- cost: the plain twin, where the objective is told, is policies/cost.py ------------------- */

static double memory_s(const struct weighing *w, int64_t i)
{
    double context = context_tokens(w->values, w->n, w->at_s, i);
    double held = context + column(w->values, w->n, PREFILL_PROMPT_TOKENS, i);
    double own = w->prompt_tokens / column(w->values, w->n, KV_CAPACITY_TOKENS, i);
    double used = least(memory_used_ratio(w->values, w->n, held, i) + own,
                        w->constants->max_memory_used);
    return w->memory_weight_s * most_known(own * used / (1.0 - used), 0.0);
}

/* What a second of work delays others by. */
static double delay_ratio(const struct weighing *w, double of_fleet, double arrivals_per_speed, int64_t i)
{
    const struct constants *c = w->constants;
    int64_t n = w->n;
    double x = w->told[SERVICE_S * n + i];
    double v = least(w->told[BACKLOG_S * n + i], w->backlog_limit_s);
    double busy = c->own_share * w->given[SERVICE_RATIO * n + i] + (1.0 - c->own_share) * of_fleet;
    busy = least(most(busy, w->given[MEMORY_RATIO * n + i]), c->max_utilisation);
    double rate = arrivals_per_speed * (1.0 / w->told[S_PER_KTOKEN * n + i]);
    double congestion = rate / (1.0 - busy);
    double price = 0.5 * w->externality_weight * congestion * (v + v + x);
    return price + w->decode_weight * column(w->values, n, DECODE_REQUESTS, i);
}

/* What the prompts that are computed again displace in their turn. */
static double cascade_s(const struct weighing *w, double delay, int64_t i)
{
    double again = w->given[ASKED_AGAIN_RATIO * w->n + i];
    double more = again / (1.0 - least(again, w->cascade_limit)) - again;
    return w->eviction_weight * more * (1.0 + delay) * w->told[SERVICE_S * w->n + i];
}

/* Where caches are outgrown. */
static void spare_caches(const struct weighing *w, double of_fleet, double arrivals_per_speed)
{
    double least_s = INFINITY;
    for (int64_t i = 0; i < w->n; i++)
        least_s = least(least_s, cascade_s(w, delay_ratio(w, of_fleet, arrivals_per_speed, i), i));
    for (int64_t i = 0; i < w->n; i++) {
        double more_s = cascade_s(w, delay_ratio(w, of_fleet, arrivals_per_speed, i), i);
        w->told[COST_S * w->n + i] += least(more_s, least_s + w->constants->max_spared_s);
    }
}

static void weigh_others(const struct weighing *w)
{
    const struct constants *c = w->constants;
    int64_t n = w->n;
    double service = 0.0, speed = 0.0;
    for (int64_t i = 0; i < n; i++) {
        service += w->given[SERVICE_RATIO * n + i];
        speed += 1.0 / w->told[S_PER_KTOKEN * n + i];
    }
    double of_fleet = service / (double)n;
    of_fleet = of_fleet < c->max_utilisation ? of_fleet : c->max_utilisation;
    double arrivals_per_speed = w->arrivals_per_s / speed;
    for (int64_t i = 0; i < n; i++) {
        double delay = delay_ratio(w, of_fleet, arrivals_per_speed, i);
        double lost = w->eviction_weight * w->given[ASKED_AGAIN_RATIO * n + i];
        double price = delay + lost * (1.0 + delay);
        double x = w->told[SERVICE_S * n + i];
        w->told[COST_S * n + i] = w->told[TTFT_S * n + i] + price * x + memory_s(w, i);
    }
    if (w->cascade_limit > 0.0)
        spare_caches(w, of_fleet, arrivals_per_speed);
}

/* -- order: the plain twin is protocol.by_cost ------------------------------------------------ */

static int is_before(const struct weighing *w, int64_t a, int64_t b)
{
    const double *cost = w->told + COST_S * w->n;
    if (cost[a] != cost[b])
        return cost[a] < cost[b];
    return w->ties[a] != w->ties[b] ? w->ties[a] < w->ties[b] : a < b;
}

/* Sorts by merging, from runs of eight. */
static void sort(const struct weighing *w)
{
    enum { RUN = 8 };
    int64_t *from = w->order, *to = w->scratch, n = w->n;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i;
        for (; k % RUN && is_before(w, i, from[k - 1]); k--)
            from[k] = from[k - 1];
        from[k] = i;
    }
    for (int64_t width = RUN; width < n; width *= 2) {
        for (int64_t start = 0; start < n; start += 2 * width) {
            int64_t middle = start + width < n ? start + width : n;
            int64_t end = start + 2 * width < n ? start + 2 * width : n;
            int64_t left = start, right = middle;
            for (int64_t k = start; k < end; k++) {
                int takes_left = right == end
                                 || (left < middle && is_before(w, from[left], from[right]));
                to[k] = takes_left ? from[left++] : from[right++];
            }
        }
        int64_t *sorted = to;
        to = from;
        from = sorted;
    }
    if (from != w->order)
        for (int64_t i = 0; i < n; i++)
            w->order[i] = from[i];
}

/* The plain twin is Trust.is_in_range. */
static int is_in_range(const struct weighing *w)
{
    for (int k = 0; k < N_FEATURES; k++)
        if (!(w->range[k] <= w->row[k] && w->row[k] <= w->range[N_FEATURES + k]))
            return 0;
    return 1;
}

/* The features of one candidate. */
void lodestar_row(struct weighing *w)
{
    struct candidate it = candidate_of(w, w->row_of);
    fill_engine(w, &it, w->row_of, w->row);
    fill_loads(w, &it, w->row_of, w->row);
}

/* One decision: what each candidate costs, their order, and whether the first may be believed. */
void lodestar_weigh(struct weighing *w)
{
    double *cost = w->told + COST_S * w->n, squares = 0.0;
    for (int64_t i = 0; i < w->n; i++)
        predict(w, i);
    if (w->weighs_others)
        weigh_others(w);
    else
        for (int64_t i = 0; i < w->n; i++)
            cost[i] = w->told[TTFT_S * w->n + i];
    for (int64_t i = 0; i < w->n; i++) {
        cost[i] += w->given[PENALTY_S * w->n + i];
        squares += cost[i] * cost[i];
    }
    w->is_finite = isfinite(squares);
    if (!w->is_finite)
        return;
    sort(w);
    w->row_of = w->order[0];
    lodestar_row(w);
    w->is_in_range = is_in_range(w);
}

/* The plain twin is Demand._memory_ratio. */
void lodestar_memory_use(struct memory_use *m)
{
    for (int64_t i = 0; i < m->n; i++) {
        double context = context_tokens(m->values, m->n, m->at_s, i);
        double held = context + column(m->values, m->n, PREFILL_PROMPT_TOKENS, i);
        double now = most_known(memory_used_ratio(m->values, m->n, held, i), 0.0);
        double kept = exp(most(m->at_s - m->seen_at_s[i], 0.0) / -m->memory_s);
        m->told[i] = kept * m->mean[i] + (1.0 - kept) * now;
    }
}

/* -- a regression: the plain twin is learning/nonnegative_rls.py ------------------------------ */

/* Adds one sample to the equations. */
void lodestar_absorb(struct equations *e, double target, double weight)
{
    const double *row = e->sample;
    int64_t d = e->d;
    for (int64_t i = 0; i < d; i++) {
        double *of = e->rows + i * (d + 1), weighted = weight * row[i];
        for (int64_t k = 0; k < d; k++)
            of[k] = of[k] * e->forgetting + weighted * row[k];
        of[d] = of[d] * e->forgetting + weighted * target;
    }
    e->n_samples = e->forgetting * e->n_samples + 1.0;
}

/* The equations with the pull to another regressor's coefficients. */
static const double *with_pull(const struct equations *e)
{
    const struct equations *to = e->shrink_to;
    int64_t width = e->d + 1;
    for (int64_t k = 0; k < e->d * width; k++)
        e->pulled[k] = e->rows[k];
    for (int64_t k = 0; k < e->d; k++) {
        double energy = to->n_samples <= 1.0 ? 1.0 : to->rows[k * width + k] / to->n_samples;
        double strength = e->shrinkage_samples * (energy + e->min_energy);
        e->pulled[k * width + k] += strength;
        e->pulled[k * width + e->d] += strength * to->theta[k];
    }
    return e->pulled;
}

/* Moves theta towards the solution of the equations, by coordinate descent on theta >= 0. */
void lodestar_solve(struct equations *e)
{
    const double *rows = e->shrink_to == NULL ? e->rows : with_pull(e);
    int64_t d = e->d;
    for (int64_t sweep = 0; sweep < e->sweeps; sweep++) {
        for (int64_t k = 0; k < d; k++) {
            const double *of = rows + k * (d + 1);
            double fitted = 0.0;
            if (!(of[k] > e->empty))
                continue;
            for (int64_t j = 0; j < d; j++)
                fitted += of[j] * e->theta[j];
            double value = e->theta[k] + (of[d] - fitted) / of[k];
            e->theta[k] = value > 0.0 ? value : 0.0;
        }
    }
}

/* Eight bytes, the first the least, on any machine. */
static uint64_t word(const unsigned char *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24 |
           (uint64_t)at[4] << 32 | (uint64_t)at[5] << 40 | (uint64_t)at[6] << 48 |
           (uint64_t)at[7] << 56;
}

/* Both halves of a product of 128 bits, one upon the other. */
static uint64_t folded(uint64_t a, uint64_t b)
{
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 wide;
    const wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    const uint64_t low = UINT32_MAX;
    const uint64_t least = (a & low) * (b & low), greatest = (a >> 32) * (b >> 32);
    const uint64_t cross = (a >> 32) * (b & low) + (least >> 32);
    const uint64_t middle = (a & low) * (b >> 32) + (cross & low);
    return (greatest + (cross >> 32) + (middle >> 32)) ^ (middle << 32 | (least & low));
#endif
}

/* XXH3-64 of each block of 64 bytes, seeded with the hash before it: `request.hash_blocks`. What
   the specification of XXH3 says of inputs of that length, and the beginning of its secret. */
void lodestar_hash_blocks(const unsigned char *data, int64_t n_blocks, uint64_t seed, uint64_t *hashes)
{
    static const uint64_t secret[] = {0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de,
                                      0x1f67b3b7a4a44072, 0x78e5c0cc4ee679cb, 0x2172ffcc7dd05a82,
                                      0x8e2443f7744608b8, 0x4c263a81e69035e0};
    static const int places[] = {0, 4, 6, 2}; /* of the secret's words, for each 16 bytes */
    for (int64_t k = 0; k < n_blocks; k++, data += 64) {
        uint64_t sum = 64 * 0x9E3779B185EBCA87u;
        for (int i = 0; i < 4; i++) {
            const uint64_t *with = secret + places[i];
            sum += folded(word(data + 16 * i) ^ (with[0] + seed),
                          word(data + 16 * i + 8) ^ (with[1] - seed));
        }
        sum = (sum ^ sum >> 37) * 0x165667919E3779F9u;
        hashes[k] = seed = sum ^ sum >> 32;
    }
}

/* Whether both sides mean the same structs. */
int64_t lodestar_size(int64_t which)
{
    const size_t sizes[] = {sizeof(struct constants), sizeof(struct weighing),
                            sizeof(struct memory_use), sizeof(struct equations)};
    return which >= 0 && which < 4 ? (int64_t)sizes[which] : -1;
}

/* A checksum of this file as it was when it was compiled. */
int64_t lodestar_source(void) { return LODESTAR_SOURCE; }
