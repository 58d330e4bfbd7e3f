// The process's parts put together, in the order in which they start and end.
#ifndef EPO_SERVER_SERVER_H_
#define EPO_SERVER_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/options.h"

namespace epo {

// Used by one thread.
class Server {
 public:
  // Opens the store and binds the address, so that what is wrong with either shows before the model
  // is loaded. Health answers NOT_SERVING and every call UNAVAILABLE until Serve().
  // FAILED_PRECONDITION in one line.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options);

  // Ends everything at once if Drain() was not called.
  virtual ~Server() = default;

  // Loads the model, continues unfinished jobs and begins to serve.
  virtual absl::Status Serve() = 0;

  // No step begins any more, and no job is to blame if the process ends now. Drain() follows.
  virtual void StopRounds() = 0;

  // Refuses new work, lets the step under way finish and be persisted, ends the streams with
  // UNAVAILABLE and the calls after a grace. False when the step took longer than the options'
  // drain timeout: the process must then exit at once, without destroying the server.
  virtual bool Drain() = 0;

  // HOST:PORT with the port that was chosen.
  virtual const std::string& address() const = 0;
};

}  // namespace epo

#endif  // EPO_SERVER_SERVER_H_
