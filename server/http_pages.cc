#include "server/http_pages.h"

#include <civetweb.h>
#include <spdlog/spdlog.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/listen_address.h"

namespace epo {
namespace {

// A thread a connection: enough that dozens of stalled clients do not keep a scraper waiting, and
// that more of them do so for a moment only.
constexpr char kThreads[] = "64";
constexpr char kRequestTimeoutMs[] = "1000";

int LogFromCivetweb(const mg_connection* /*connection*/, const char* message) {
  spdlog::debug("http: {}", message);
  return 1;
}

class HttpPagesImpl final : public HttpPages {
 public:
  explicit HttpPagesImpl(Pages pages) : pages_(std::move(pages)) {}

  ~HttpPagesImpl() override {
    if (context_ != nullptr) mg_stop(context_);
  }

  absl::Status Listen(const std::string& listen, const std::string& flag) {
    mg_init_library(MG_FEATURES_DEFAULT);
    const char* options[] = {"listening_ports",    listen.c_str(),    "num_threads", kThreads,
                             "request_timeout_ms", kRequestTimeoutMs, nullptr};
    mg_callbacks callbacks{};
    callbacks.log_message = LogFromCivetweb;
    mg_init_data init{&callbacks, this, options};
    char why[256] = "";
    mg_error_data error{nullptr, why, sizeof(why)};
    context_ = mg_start2(&init, &error);
    if (context_ == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", listen, ": ",
                                                        WhyNotListening(listen),
                                                        "; choose another address with ", flag));
    }
    mg_server_port port{};
    if (mg_get_server_ports(context_, 1, &port) < 1) {
      return absl::InternalError(absl::StrCat("no port is open at ", listen));
    }
    address_ = absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port.port);
    mg_set_request_handler(context_, "**", &HttpPagesImpl::Handle, this);
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

 private:
  static int Handle(mg_connection* connection, void* self) {
    const mg_request_info* request = mg_get_request_info(connection);
    const auto& pages = static_cast<const HttpPagesImpl*>(self)->pages_;
    const bool head = std::strcmp(request->request_method, "HEAD") == 0;
    const auto found = pages.find(request->local_uri);
    HttpPage page;
    if (found == pages.end()) {
      page = {404, page.content_type, "no such page; there are:"};
      for (const auto& [path, make] : pages) absl::StrAppend(&page.body, " ", path);
      page.body += "\n";
    } else if (!head && std::strcmp(request->request_method, "GET") != 0) {
      page = {405, page.content_type, "only GET and HEAD\n"};
    } else {
      page = found->second();
    }
    mg_printf(connection,
              "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: "
              "no-store\r\nConnection: close\r\n%s\r\n",
              page.status, mg_get_response_code_text(connection, page.status),
              page.content_type.c_str(), page.body.size(),
              page.status == 405 ? "Allow: GET, HEAD\r\n" : "");
    if (!head) mg_write(connection, page.body.data(), page.body.size());
    return page.status;
  }

  const Pages pages_;
  std::string address_;
  mg_context* context_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpPages>> HttpPages::Start(const std::string& listen,
                                                            const std::string& flag, Pages pages) {
  auto server = std::make_unique<HttpPagesImpl>(std::move(pages));
  if (absl::Status status = server->Listen(listen, flag); !status.ok()) return status;
  return server;
}

}  // namespace epo
