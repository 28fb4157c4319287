/* What may never happen, and, to show that the model does not stand still, what must be possible:
 * with one of the names after #ifdef defined, the checker is to find a way to it. */

/* Whoever may be elected holds every acknowledged entry, synced: none is missing from any disk that
 * the stored ISR names. */
inline judge_electable() {
    i = 0;
    do
    :: i < REPLICAS ->
        assert(!has(state_isr, node[i].disk) || (node[i].synced >= acknowledged &&
                                                 holds(node[i].log, truth, acknowledged)));
        i++
    :: else -> break
    od;
    i = 0
}

/* Committed prefixes are equal. */
inline judge_commit(ours, index) {
    assert(holds(ours, truth, (index < acknowledged -> index : acknowledged)))
}

/* What an epoch commits is in the log of every later epoch. So no follower ever finds that its
 * leader's log differs from what it knows to be committed (rule 7: it would halt). */
inline judge_later_reigns(e, index) {
    assert((e >= 2 || !reign[2].published || holds(reign[2].log, truth, index)) &&
           (e >= 3 || !reign[EPOCHS].published || holds(reign[EPOCHS].log, truth, index)))
}

inline judge_possible_commit(n) {
#ifdef A_DEPOSED_LEADER_COMMITS
    assert(node[n].epoch == state_epoch);
#endif
#ifdef THE_LAST_EPOCH_FILLS_THE_LOG
    assert(node[n].epoch < EPOCHS || acknowledged < ENTRIES);
#endif
#ifdef A_NEW_DISK_COUNTS
    assert(!has(node[n].confirmed, REPLICAS));
#endif
#ifdef TWO_COMMIT_WITHOUT_THE_THIRD
    assert(size(node[n].confirmed | node[n].doubtful) > MIN_IN_SYNC);
#endif
    skip
}

inline judge_possible_lead(n) {
#ifdef A_SUCCESS_COMES_LATE
    assert(node[n].epoch == state_epoch);
#endif
    skip
}

inline judge_possible_cut() {
#ifdef A_TAIL_IS_CUT
    assert(false);
#endif
    skip
}
