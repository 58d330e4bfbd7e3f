// A few pages over HTTP, for those who watch the server.
#ifndef EPO_SERVER_HTTP_PAGES_H_
#define EPO_SERVER_HTTP_PAGES_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace epo {

struct HttpPage {
  // 200 or 503.
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// Serves pages until it is destroyed, which waits for the requests under way. Answers GET and HEAD
// of its pages and nothing else; a client that stalls is dropped after a second.
class HttpPages {
 public:
  // By path: "/metrics". Called on a thread of the pages' own; several may run at once.
  using Pages = std::map<std::string, std::function<HttpPage()>>;

  // `listen`: HOST:PORT, port 0 for a free one. `flag` is what chose the address, for the error:
  // FAILED_PRECONDITION when nobody can listen there.
  static absl::StatusOr<std::unique_ptr<HttpPages>> Start(const std::string& listen,
                                                          const std::string& flag, Pages pages);

  virtual ~HttpPages() = default;

  // HOST:PORT with the port that is used.
  virtual const std::string& address() const = 0;
};

}  // namespace epo

#endif  // EPO_SERVER_HTTP_PAGES_H_
