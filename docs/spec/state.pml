/* What there is: bounds, logs, replicas, the network, the coordinator. */

#ifndef EPOCHS
#define EPOCHS  2   /* reigns, at most 3 */
#endif
#ifndef ENTRIES
#define ENTRIES 3   /* the longest log, at most 4; each reign's opening entry is one of them */
#endif
#ifndef WIPES
#define WIPES   1   /* how often a replica comes back with a new, empty disk: never or once */
#endif
#define REPLICAS      3
#define MIN_IN_SYNC   2
#define DISKS         (REPLICAS + WIPES)

/* ---- Logs: a number, with two bits for the epoch of each entry. Epoch and index name an entry, as
 * the one leader of an epoch writes each index once. Digests are chained: they are equal where the
 * logs are equal up to there. */

#define entry(log, i)    (((log) >> (2 * ((i) - 1))) & 3)
#define upto(log, i)     ((log) & ((1 << (2 * (i))) - 1))
#define holds(a, b, i)   (upto(a, i) == upto(b, i))         /* the digests at i are equal */
#define with(log, i, e)  (upto(log, (i) - 1) | ((e) << (2 * ((i) - 1))))

/* ---- Sets of disks, one bit each. Replica n has disk n at first; disk 3 is the new one. */

#define bit(d)           (1 << (d))
#define has(set, d)      (((set) >> (d)) & 1)
#define size(set)        (has(set, 0) + has(set, 1) + has(set, 2) + has(set, 3))
#define everybody        7
#define owner(d)         ((d) < REPLICAS -> (d) : wiped)
#define disks_of(n)      (bit(n) | ((WIPES && wiped == (n)) -> bit(REPLICAS) : 0))

typedef Replica {
    /* On the disk. */
    unsigned disk : 2;          /* the disk's id */
    unsigned epoch : 2;         /* the highest seen, persisted before it is acted on (rule 4) */
    unsigned log : 8;
    unsigned last : 3;
    unsigned synced : 3;        /* what a power cut cannot take */
    /* In the memory of a leader. */
    bool leads;                 /* in its epoch */
    unsigned confirmed : 4;     /* the ISR that it knows to be stored */
    unsigned doubtful : 4;      /* the ISR that it proposed and does not know the outcome of */
    unsigned acked0 : 3;        /* up to where each disk has acked to it in this epoch */
    unsigned acked1 : 3;
    unsigned acked2 : 3;
    unsigned acked3 : 3;
    /* Accepted by the coordinator; the reply may come late or never. */
    unsigned won : 2;           /* the epoch that it is to lead, or 0 */
    unsigned reply : 4;         /* the ISR, or 0 */
};

/* What the leader of an epoch has ever published may come at any later time, to anybody. */
typedef Reign {
    bool begun;
    unsigned leader : 2;
    unsigned log : 8;
    unsigned published : 3;     /* up to here */
    unsigned first : 3;         /* index of the opening entry */
    unsigned commit : 3;        /* travels with every message (rule 9) */
};

Replica node[REPLICAS];
Reign reign[EPOCHS + 1];
unsigned wiped : 2 = REPLICAS;  /* who has the new disk; 3: nobody */

/* The coordinator's `state`. A transaction expects a version, and whatever is accepted makes a new
 * one. So no version is kept here: what is accepted drops what still expected the old one. */
unsigned state_epoch : 2 = 1;
unsigned state_leader : 2;
unsigned state_isr : 4 = everybody;
unsigned proposed : 4;          /* an ISR on its way from the leader to the coordinator, or 0 */

/* The log that clients were told of. */
unsigned truth : 8;
unsigned acknowledged : 3;

/* Scratch, not part of a state. `set` is the ISR to be proposed or accepted. */
hidden byte i;
hidden byte set;
hidden byte oldest;
hidden byte whom;
hidden byte disk_id;
