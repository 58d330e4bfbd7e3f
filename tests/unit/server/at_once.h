// Threads that begin at the same time.
#ifndef EPO_TESTS_UNIT_SERVER_AT_ONCE_H_
#define EPO_TESTS_UNIT_SERVER_AT_ONCE_H_

#include <functional>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"

namespace epo {

// Runs each of `works` in a thread of its own and waits for all of them.
inline void AtOnce(const std::vector<std::function<void()>>& works) {
  absl::Notification start;
  std::vector<std::thread> threads;
  threads.reserve(works.size());
  for (const auto& work : works) {
    threads.emplace_back([&start, &work] {
      start.WaitForNotification();
      work();
    });
  }
  start.Notify();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace epo

#endif  // EPO_TESTS_UNIT_SERVER_AT_ONCE_H_
