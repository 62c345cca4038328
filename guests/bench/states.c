/* A tokeniser for a made-up language, driven by a state machine over random text. */
#include "bench.h"
#include "guest.h"

enum { BYTES = 8192 };
enum state { BETWEEN, WORD, NUMBER, HEX, STRING, ESCAPE, COMMENT, OPERATOR, STATES };

static const char alphabet[] = "etaoin shrdlu 0123456789 x\"\\#\n+-=<> abcf ";
static char text[BYTES];
static uint32_t tokens[STATES];

static enum state start(char c)
{
    switch (c) {
    case ' ':
    case '\n':
        return BETWEEN;
    case '0' ... '9':
        return NUMBER;
    case '"':
        return STRING;
    case '#':
        return COMMENT;
    case '+':
    case '-':
    case '=':
    case '<':
    case '>':
    case '\\':
        return OPERATOR;
    default:
        return WORD;
    }
}

static enum state next(enum state state, char c)
{
    switch (state) {
    case WORD:
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? WORD : start(c);
    case NUMBER:
        return c == 'x' ? HEX : c >= '0' && c <= '9' ? NUMBER : start(c);
    case HEX:
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') ? HEX : start(c);
    case STRING:
        return c == '\\' ? ESCAPE : c == '"' ? BETWEEN : STRING;
    case ESCAPE:
        return STRING;
    case COMMENT:
        return c == '\n' ? BETWEEN : COMMENT;
    default:
        return start(c);
    }
}

uint32_t bench_states(uint32_t seed)
{
    enum state state = BETWEEN;
    uint32_t sum = 0, steps = 0;

    for (unsigned i = 0; i < BYTES; i++)
        text[i] = alphabet[random_next(&seed) % (sizeof alphabet - 1)];
    for (unsigned i = 0; i < STATES; i++)
        tokens[i] = 0;
    for (unsigned i = 0; i < BYTES; i++) {
        enum state after = next(state, text[i]);
        if (after != state)
            tokens[after]++;
        state = after;
        sum = sum * 31 + state;
    }
    for (unsigned i = 0; i < STATES; i++)
        steps += tokens[i];
    check(steps > 0 && steps <= BYTES);
    return sum ^ steps;
}
