// What the states of a job mean.
#ifndef EPO_SERVER_JOB_STATE_H_
#define EPO_SERVER_JOB_STATE_H_

#include "epo/v1/job.pb.h"

namespace epo {

// Whether a job in `state` has ended for good.
inline bool IsTerminal(v1::Job::State state) {
  return state == v1::Job::SUCCEEDED || state == v1::Job::FAILED || state == v1::Job::CANCELLED;
}

}  // namespace epo

#endif  // EPO_SERVER_JOB_STATE_H_
