#include "server/http_pages.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace epo {
namespace {

int Connect(const std::string& address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
  return fd;
}

std::string Get(const std::string& address, const std::string& path) {
  const int fd = Connect(address);
  const std::string request = "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(fd, buffer, sizeof(buffer))) > 0;) answer.append(buffer, n);
  close(fd);
  return answer;
}

TEST(HttpPagesTest, DozensOfIdleConnectionsKeepNobodyWaiting) {
  const auto pages = HttpPages::Start("127.0.0.1:0", "--metrics-listen",
                                      {{"/healthz", [] { return HttpPage{.body = "ok\n"}; }}});
  ASSERT_TRUE(pages.ok()) << pages.status();
  std::vector<int> idle;
  for (int i = 0; i < 50; ++i) idle.push_back(Connect((*pages)->address()));
  const absl::Time start = absl::Now();
  const std::string answer = Get((*pages)->address(), "/healthz");
  EXPECT_EQ(answer.find("HTTP/1.1 200"), 0) << answer;
  EXPECT_NE(answer.find("\r\n\r\nok\n"), std::string::npos) << answer;
  // Behind them, one after another on few threads, it would come later even on an idle machine.
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
  for (const int fd : idle) close(fd);
}

}  // namespace
}  // namespace epo
