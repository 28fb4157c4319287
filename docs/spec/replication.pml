/* Election, change of the in-sync replicas (ISR) and commit, as in docs/protocol.md.
 *
 * Three replicas, a coordinator, and a network that may lose, double, delay and reorder everything.
 * "Rule N" is the rule of that page. README.md beside this file says how to run it, what it leaves
 * out and what was found. Names in capitals after #ifdef are mistakes, for the checker to find.
 */

#include "state.pml"
#include "judge.pml"

/* ---- Steps of leaders and followers alike -------------------------------------------------- */

#define from_disk(n, d) ((d) == 0 -> node[n].acked0 : ((d) == 1 -> node[n].acked1 : \
                        ((d) == 2 -> node[n].acked2 : node[n].acked3)))

#ifdef ACKS_COUNTED_BY_NODE_NAME        /* whatever disk of that name they came from */
#define acked(n, d) ((d) < REPLICAS || wiped >= REPLICAS -> from_disk(n, d) : \
    (from_disk(n, d) > from_disk(n, wiped) -> from_disk(n, d) : from_disk(n, wiped)))
#else
#define acked(n, d) from_disk(n, d)
#endif

inline forget_acks(n) {
    node[n].acked0 = 0; node[n].acked1 = 0; node[n].acked2 = 0; node[n].acked3 = 0
}

inline note_ack(n, d, index) {
    if
    :: d == 0 && index > node[n].acked0 -> node[n].acked0 = index
    :: d == 1 && index > node[n].acked1 -> node[n].acked1 = index
    :: d == 2 && index > node[n].acked2 -> node[n].acked2 = index
    :: d == 3 && index > node[n].acked3 -> node[n].acked3 = index
    :: else
    fi
}

inline lead_no_more(n) {
    if
    :: node[n].leads ->
        i = node[n].epoch;
        node[n].leads = false; node[n].confirmed = 0; node[n].doubtful = 0; forget_acks(n);
        reign[i].log = upto(reign[i].log, reign[i].published);
        reign[i].first = 0; reign[i].commit = 0; reign[i].leader = 0
    :: else
    fi
}

/* Messages of epochs that everybody has left can have no effect: forgetting them saves states. */
inline forget_old_reigns() {
    oldest = (node[0].epoch < node[1].epoch -> node[0].epoch : node[1].epoch);
    oldest = (node[2].epoch < oldest -> node[2].epoch : oldest);
    i = 1;
    do
    :: i < oldest && i <= EPOCHS ->
        reign[i].log = 0; reign[i].published = 0; reign[i].first = 0; reign[i].commit = 0;
        reign[i].begun = true;
        i++
    :: else -> break
    od
}

/* Rule 4: a higher epoch is persisted before anything is done in it. A success of one's own below
 * it is ignored from now on. */
inline enter(n, e) {
    if
    :: e > node[n].epoch ->
        lead_no_more(n);
        node[n].epoch = e;
        if
        :: node[n].won <= e -> node[n].won = 0; node[n].reply = 0
        :: else
        fi;
        forget_old_reigns()
    :: else
    fi
}

#define leader_lives(e) (node[reign[e].leader].leads && node[reign[e].leader].epoch == (e))

inline append(n, e) {
    node[n].last = node[n].last + 1;
    node[n].log = with(node[n].log, node[n].last, e)
}

inline cut(n, from) {
    node[n].last = from - 1;
    node[n].log = upto(node[n].log, from - 1);
    node[n].synced = (node[n].synced < from -> node[n].synced : from - 1);
    judge_possible_cut();
    judge_electable()
}

/* ---- Rule 4: election ----------------------------------------------------------------------
 * To ask for the lead leaves no trace in who asks: to ask and to be accepted are one step here. */

#define without_leader (state_isr & ~disks_of(state_leader))

#ifdef EMPTY_DISK_ELECTABLE             /* by its name, not by the disk that the ISR names */
#define is_eligible(n) (state_isr & disks_of(n))
#else
#define is_eligible(n) has(state_isr, node[n].disk)
#endif
#define may_stand(n)       (state_epoch < EPOCHS && !node[n].leads && is_eligible(n))
#define may_drop_leader(n) (has(without_leader, node[n].disk) && \
                            size(without_leader) >= MIN_IN_SYNC)

inline elect(n) {
    state_epoch = state_epoch + 1; state_leader = n; state_isr = set;
#ifndef VERSION_NOT_CHECKED
    proposed = 0;
#endif
    node[n].won = state_epoch; node[n].reply = set;
    judge_electable()
}

/* Asked for before the disk was exchanged: the process that asked is gone, and nobody will lead. */
#define may_have_stood(n)  (state_epoch < EPOCHS && wiped == (n) && has(state_isr, n))

inline elect_in_vain(n) {
    elect(n);
    node[n].won = 0; node[n].reply = 0
}

/* The epoch is persisted on success; a success that is not above it is ignored (see `enter`). The
 * opening entry is appended; it is published when it is synced (see `sync_own_log`). */
inline take_the_lead(n) {
    node[n].epoch = node[n].won; node[n].confirmed = node[n].reply; node[n].leads = true;
    node[n].won = 0; node[n].reply = 0;
    forget_old_reigns();
    i = node[n].epoch;
    judge_possible_lead(n);
    assert(!reign[i].begun);            /* one leader an epoch, for ever */
    reign[i].begun = true; reign[i].leader = n;
    append(n, i);
    reign[i].first = node[n].last; reign[i].log = node[n].log
}

/* ---- The leader's log ---------------------------------------------------------------------- */

/* Its own sync is its ack (rule 1), and lets it publish the opening entry (rule 4). */
inline sync_own_log(n) {
    node[n].synced = node[n].last;
    reign[node[n].epoch].published = node[n].last
}

/* Rule 6: only once the opening entry has committed. Published at once, synced later. */
inline take_a_write(n) {
    i = node[n].epoch;
    append(n, i);
    reign[i].log = node[n].log; reign[i].published = node[n].last
}

/* Rule 1: a disk counts for a commit up to where it acked to this leader in this epoch, its own
 * disk up to where it is synced. */
#ifdef LEADER_ACKS_BEFORE_ITS_SYNC
#define own_ack(n) node[n].last
#else
#define own_ack(n) node[n].synced
#endif
#define counts(n, d, i) (((d) == node[n].disk -> own_ack(n) : acked(n, d)) >= (i))
#define counts_if_in(set, n, d, i) (!has(set, d) || counts(n, d, i))

/* Rule 2: the effective ISR. (Joiners that are not proposed yet are left out: they only make
 * commits wait.) */
#define effective(n) (node[n].confirmed | node[n].doubtful)

#ifdef COMMIT_ON_FIRST_ACK
#define everybody_has(n, i) (counts(n, node[n].disk, i) && ( \
    (node[n].disk != 0 && has(effective(n), 0) && acked(n, 0) >= (i)) || \
    (node[n].disk != 1 && has(effective(n), 1) && acked(n, 1) >= (i)) || \
    (node[n].disk != 2 && has(effective(n), 2) && acked(n, 2) >= (i)) || \
    (node[n].disk != 3 && has(effective(n), 3) && acked(n, 3) >= (i))))
#else
#define everybody_has(n, i) ( \
    counts_if_in(effective(n), n, 0, i) && counts_if_in(effective(n), n, 1, i) && \
    counts_if_in(effective(n), n, 2, i) && counts_if_in(effective(n), n, 3, i))
#endif

/* The opening entry commits everything before it; later entries commit one by one. */
#define is_ready(n)       (reign[node[n].epoch].commit > 0)
#define next_commit(n)    (is_ready(n) -> reign[node[n].epoch].commit + 1 : \
                                          reign[node[n].epoch].first)

inline commit_next(n) {
    i = next_commit(n);
    reign[node[n].epoch].commit = i;
    judge_commit(node[n].log, i);
    if
    :: i > acknowledged -> acknowledged = i; truth = upto(node[n].log, i)  /* "ok" */
    :: else
    fi;
    judge_possible_commit(n);
    set = node[n].epoch;
    judge_later_reigns(set, i);
    judge_electable()
}

/* ---- Rules 2 and 3: change of the ISR ------------------------------------------------------
 * One proposal at a time is followed. Of several that expect one version only one can be accepted,
 * and the others do no more than make commits wait. For the same reason nothing is proposed that
 * expects a version that is gone. */

#define may_propose(n) (node[n].leads && node[n].epoch == state_epoch && !proposed && \
                        !node[n].reply)

/* What is proposed counts from now on, until a higher version is known. */
inline propose(n) {
    proposed = set; node[n].doubtful = set
}

inline propose_shrink(n) {
    propose(n);
#ifdef SHRINK_COUNTED_BEFORE_THE_TRANSACTION
    node[n].confirmed = set; node[n].doubtful = 0
#endif
}

/* The coordinator accepts. A restarted leader does not hear of it. */
inline change_isr() {
    state_isr = proposed;
    if
    :: leader_lives(state_epoch) -> node[state_leader].reply = proposed
    :: else
    fi;
    proposed = 0;
    judge_electable()
}

inline hear_of_change(n) {
    node[n].confirmed = node[n].reply; node[n].doubtful = 0; node[n].reply = 0
}

#define without(n, d)     (node[n].confirmed & ~bit(d))
#define may_shrink(n, d)  (may_propose(n) && (d) != node[n].disk && has(node[n].confirmed, d) && \
                           size(without(n, d)) >= MIN_IN_SYNC)          /* rule 3 */

/* A disk takes the place of its node's older one. It is admitted when its match has reached the
 * commit index and the epoch's first entry. */
#define admitting(n, d)   ((node[n].confirmed & ~disks_of(owner(d))) | bit(d))
#define level_with(n)     next_level(reign[node[n].epoch].commit, reign[node[n].epoch].first)
#define next_level(a, b)  ((a) > (b) -> (a) : (b))
#ifdef EXPAND_WITHOUT_CONDITION
#define is_level(n, d)    reign[node[n].epoch].published
#else
#define is_level(n, d)    (reign[node[n].epoch].published && acked(n, d) >= level_with(n))
#endif
#define may_admit(n, d)   (may_propose(n) && (d) < DISKS && owner(d) < REPLICAS && \
                           owner(d) != (n) && !has(node[n].confirmed, d) && is_level(n, d))

/* ---- The follower -------------------------------------------------------------------------- */

#ifdef NO_EPOCH_FENCE
#define listens(n, e) (reign[e].published && !node[n].leads)
#else
#define listens(n, e) (reign[e].published && \
                       (e > node[n].epoch || (e == node[n].epoch && !node[n].leads)))
#endif

#define lacks_some(n, e) (!holds(node[n].log, reign[e].log, reign[e].published))

/* Rule 7: an Append whose `previous` is held, with one entry that is not: catch-up has found the
 * last common point. The log is cut only where it differs from the leader's. */
inline take_over(n, e) {
    enter(n, e);
    i = 1;
    do
    :: holds(node[n].log, reign[e].log, i) -> i++
    :: else -> break
    od;
    if
    :: node[n].last >= i -> cut(n, i)
    :: else
    fi;
    i = node[n].last + 1;
    i = entry(reign[e].log, i);
    append(n, i)
}

/* Rule 9: the commit index comes with its digest, and counts if that is equal here. */
inline learn_commit(n, e) {
    i = reign[e].commit;
    if
#ifdef COMMIT_ADOPTED_WITHOUT_ITS_DIGEST
    :: i <= node[n].synced ->
#else
    :: i <= node[n].synced && holds(node[n].log, reign[e].log, i) ->
#endif
        judge_commit(node[n].log, i)
    :: else
    fi;
    i = 0
}

/* Else a message changes nothing. */
#define has_news(n, e)     (e > node[n].epoch || node[n].synced < node[n].last || \
                            may_ack_more(n, e))
#define may_ack_more(n, e) (leader_lives(e) && acked_to(n, e) < reign[e].published && \
                            holds(node[n].log, reign[e].log, acked_to(n, e) + 1))
#define acked_to(n, e)     from_disk(reign[e].leader, node[n].disk)

/* Rule 1: ack what equals the leader's log, once it is synced. That the leader hears of it late, or
 * never, is the same as a leader that does not act on it yet. */
inline sync_and_ack(n, e) {
#ifndef FOLLOWER_ACKS_BEFORE_ITS_SYNC
    node[n].synced = node[n].last;
#endif
    i = reign[e].published;
    do
    :: !holds(node[n].log, reign[e].log, i) -> i--
    :: else -> break
    od;
    if
    :: leader_lives(e) ->
        whom = reign[e].leader; disk_id = node[n].disk;
        note_ack(whom, disk_id, i)
    :: else                             /* nobody is there to count it */
    fi
}

/* ---- Faults -------------------------------------------------------------------------------- */

/* A crash and a start. A power cut takes any part of what was not synced; what is left is synced
 * before anything else. The new process leads nothing, whatever `state` says (rule 4). */
inline restart(n, left) {
    node[n].last = left;
    node[n].log = upto(node[n].log, node[n].last);
    node[n].synced = node[n].last;
    node[n].won = 0; node[n].reply = 0;
    lead_no_more(n);
#ifdef EPOCH_NOT_PERSISTED
    node[n].epoch = 0;
#endif
    judge_electable()
}

/* Rule 8: a new disk has an id that no ISR names. Rule 4: it learns the epoch from `state` before
 * its first message. */
inline exchange_disk(n) {
    wiped = n;
    node[n].disk = REPLICAS;
    restart(n, 0);
    enter(n, state_epoch)
}

/* ---- A replica: whatever may happen next --------------------------------------------------- */

#define ADMIT(d) \
    :: d_step { may_admit(me, d) -> set = admitting(me, d); propose(me); \
                printf("n%d proposes to admit disk %d\n", me, d) }
#define SHRINK(d) \
    :: d_step { may_shrink(me, d) -> set = without(me, d); propose_shrink(me); \
                printf("n%d proposes to remove disk %d\n", me, d) }
#define FOLLOW(e) \
    :: d_step { listens(me, e) && lacks_some(me, e) -> take_over(me, e); \
                printf("n%d takes over entry %d in epoch %d\n", me, node[me].last, e) } \
    :: d_step { listens(me, e) && has_news(me, e) -> \
                enter(me, e); sync_and_ack(me, e); learn_commit(me, e); \
                printf("n%d syncs and acks in epoch %d\n", me, e) }
#define LOSE(count) \
    :: d_step { node[me].last >= node[me].synced + count -> restart(me, node[me].last - count); \
                printf("n%d crashes; entries lost: %d\n", me, count) }

proctype Run(byte me) {
end: do
    /* Rules 4, 5, 6: elections. Usurping is safe at any time. */
    :: d_step { may_stand(me) -> set = state_isr; elect(me);
                printf("n%d is elected\n", me) }
    :: d_step { may_stand(me) && may_drop_leader(me) -> set = without_leader; elect(me);
                printf("n%d is elected, the leader before it dropped\n", me) }
    :: d_step { may_have_stood(me) -> set = state_isr; elect_in_vain(me);
                printf("n%d is elected too late\n", me) }
    :: d_step { node[me].won && node[me].last < ENTRIES -> take_the_lead(me);
                printf("n%d leads epoch %d\n", me, node[me].epoch) }
    :: d_step { node[me].leads -> lead_no_more(me);
                printf("n%d makes way, or restarts and loses nothing\n", me) }
#ifdef RESTARTED_LEADER_RESUMES
    :: d_step { !node[me].leads && state_leader == me && node[me].epoch == state_epoch &&
                node[me].last < ENTRIES ->
                node[me].won = state_epoch; node[me].reply = state_isr; take_the_lead(me);
                printf("n%d leads epoch %d again\n", me, node[me].epoch) }
#endif

    /* Rules 1, 4, 6: lead. */
    :: d_step { node[me].leads && node[me].synced < node[me].last -> sync_own_log(me);
                printf("n%d syncs its log and has published it\n", me) }
    :: d_step { node[me].leads && is_ready(me) && node[me].last < ENTRIES -> take_a_write(me);
                printf("n%d takes a write\n", me) }
    :: d_step { node[me].leads && next_commit(me) <= node[me].last &&
                everybody_has(me, next_commit(me)) -> commit_next(me);
                printf("n%d commits up to %d in epoch %d\n", me, reign[node[me].epoch].commit,
                       node[me].epoch) }

    /* Rules 2, 3: change the ISR. */
    SHRINK(0) SHRINK(1) SHRINK(2) SHRINK(3)
    ADMIT(0) ADMIT(1) ADMIT(2) ADMIT(3)
    :: d_step { proposed && state_leader == me -> change_isr();
                printf("the proposal of n%d is accepted\n", me) }
    :: d_step { node[me].leads && node[me].reply -> hear_of_change(me);
                printf("n%d hears of it\n", me) }
#ifdef PROPOSAL_IN_DOUBT_TAKEN_AS_FAILED
    :: d_step { node[me].leads && node[me].doubtful -> node[me].doubtful = 0;
                printf("n%d gives up the proposal\n", me) }
#endif

    /* Rules 1, 4, 7, 9: follow who has published in this epoch or a higher one, or `state`. */
    FOLLOW(1) FOLLOW(2)
#if EPOCHS > 2
    FOLLOW(3)
#endif
    :: d_step { state_epoch > node[me].epoch -> enter(me, state_epoch);
                printf("n%d reads of epoch %d\n", me, node[me].epoch) }
#ifdef TRUNCATION_BECAUSE_A_MESSAGE_IS_SHORTER
    :: d_step { listens(me, state_epoch) && node[me].last > 1 &&
                holds(node[me].log, reign[state_epoch].log, node[me].last - 1) ->
                enter(me, state_epoch); i = node[me].last; cut(me, i);
                printf("n%d cuts off an entry\n", me) }
#endif

    LOSE(1) LOSE(2) LOSE(3) LOSE(4)
    :: d_step { WIPES && wiped >= REPLICAS -> exchange_disk(me);
                printf("n%d gets a new disk\n", me) }
    od
}

/* The first reign is that of replica 0; as the replicas are alike, so it may be. */
init {
    atomic {
        node[1].disk = 1; node[2].disk = 2;
        node[0].won = 1; node[0].reply = everybody;
        run Run(0); run Run(1); run Run(2)
    }
}
