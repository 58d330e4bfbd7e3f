// What the states of a sweep's jobs say together.
#ifndef EPO_SERVER_SWEEP_STATE_H_
#define EPO_SERVER_SWEEP_STATE_H_

#include "epo/v1/sweep.pb.h"

namespace epo {

// Whether a sweep in `state` has ended for good.
inline bool IsTerminal(v1::Sweep::State state) {
  return state == v1::Sweep::SUCCEEDED || state == v1::Sweep::FAILED ||
         state == v1::Sweep::CANCELLED;
}

// Adds a job to what a sweep tells of its jobs.
void AddToSweep(const v1::Job& job, v1::Sweep& sweep);

// Sets the sweep's state, and its end, once all its jobs were added.
void SettleSweep(v1::Sweep& sweep);

}  // namespace epo

#endif  // EPO_SERVER_SWEEP_STATE_H_
