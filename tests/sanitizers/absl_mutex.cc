// Tells ThreadSanitizer what absl::Mutex and absl::Notification do. Debian's abseil is not
// instrumented, so every access that they order would look like a race. The linker (--wrap, see
// CMakeLists.txt) has the calls of our code come here first; calls among the packages stay as they
// are.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

#define EPO_WRAPPED(name) __asm__("__wrap_" name)
#define EPO_REAL(name) __asm__("__real_" name)

#define EPO_LOCK "_ZN4absl7debian35Mutex4LockEv"
#define EPO_UNLOCK "_ZN4absl7debian35Mutex6UnlockEv"
#define EPO_AWAIT "_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE"
#define EPO_AWAIT_TIMEOUT "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE"
#define EPO_AWAIT_DEADLINE "_ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE"
#define EPO_NOTIFY "_ZN4absl7debian312Notification6NotifyEv"
#define EPO_WAIT "_ZNK4absl7debian312Notification19WaitForNotificationEv"
#define EPO_WAIT_DEADLINE \
  "_ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE"

namespace epo {

void RealLock(absl::Mutex* mutex) EPO_REAL(EPO_LOCK);
void RealUnlock(absl::Mutex* mutex) EPO_REAL(EPO_UNLOCK);
void RealAwait(absl::Mutex* mutex, const absl::Condition& condition) EPO_REAL(EPO_AWAIT);
bool RealAwaitTimeout(absl::Mutex* mutex, const absl::Condition& condition, absl::Duration timeout)
    EPO_REAL(EPO_AWAIT_TIMEOUT);
bool RealAwaitDeadline(absl::Mutex* mutex, const absl::Condition& condition, absl::Time deadline)
    EPO_REAL(EPO_AWAIT_DEADLINE);
void RealNotify(absl::Notification* notification) EPO_REAL(EPO_NOTIFY);
void RealWait(const absl::Notification* notification) EPO_REAL(EPO_WAIT);
bool RealWaitDeadline(const absl::Notification* notification, absl::Time deadline)
    EPO_REAL(EPO_WAIT_DEADLINE);

void Lock(absl::Mutex* mutex) EPO_WRAPPED(EPO_LOCK);
void Unlock(absl::Mutex* mutex) EPO_WRAPPED(EPO_UNLOCK);
void Await(absl::Mutex* mutex, const absl::Condition& condition) EPO_WRAPPED(EPO_AWAIT);
bool AwaitTimeout(absl::Mutex* mutex, const absl::Condition& condition, absl::Duration timeout)
    EPO_WRAPPED(EPO_AWAIT_TIMEOUT);
bool AwaitDeadline(absl::Mutex* mutex, const absl::Condition& condition, absl::Time deadline)
    EPO_WRAPPED(EPO_AWAIT_DEADLINE);
void Notify(absl::Notification* notification) EPO_WRAPPED(EPO_NOTIFY);
void Wait(const absl::Notification* notification) EPO_WRAPPED(EPO_WAIT);
bool WaitDeadline(const absl::Notification* notification, absl::Time deadline)
    EPO_WRAPPED(EPO_WAIT_DEADLINE);

namespace {

void* Address(const absl::Notification* notification) {
  return const_cast<absl::Notification*>(notification);
}

// Gives the lock away for as long as it lives. Between the "pre" and "post" calls a thread's
// accesses are ignored: there abseil evaluates conditions, those of other waiters too.
class Waiting {
 public:
  explicit Waiting(absl::Mutex* mutex) : mutex_(mutex) {
    __tsan_mutex_pre_unlock(mutex_, 0);
    __tsan_mutex_post_unlock(mutex_, 0);
    __tsan_mutex_pre_lock(mutex_, 0);
  }
  ~Waiting() { __tsan_mutex_post_lock(mutex_, 0, 0); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  absl::Mutex* mutex_;
};

}  // namespace

void Lock(absl::Mutex* mutex) {
  __tsan_mutex_pre_lock(mutex, 0);
  RealLock(mutex);
  __tsan_mutex_post_lock(mutex, 0, 0);
}

void Unlock(absl::Mutex* mutex) {
  __tsan_mutex_pre_unlock(mutex, 0);
  RealUnlock(mutex);
  __tsan_mutex_post_unlock(mutex, 0);
}

void Await(absl::Mutex* mutex, const absl::Condition& condition) {
  const Waiting waiting(mutex);
  RealAwait(mutex, condition);
}

bool AwaitTimeout(absl::Mutex* mutex, const absl::Condition& condition, absl::Duration timeout) {
  const Waiting waiting(mutex);
  return RealAwaitTimeout(mutex, condition, timeout);
}

bool AwaitDeadline(absl::Mutex* mutex, const absl::Condition& condition, absl::Time deadline) {
  const Waiting waiting(mutex);
  return RealAwaitDeadline(mutex, condition, deadline);
}

void Notify(absl::Notification* notification) {
  __tsan_release(notification);
  RealNotify(notification);
}

void Wait(const absl::Notification* notification) {
  RealWait(notification);
  __tsan_acquire(Address(notification));
}

bool WaitDeadline(const absl::Notification* notification, absl::Time deadline) {
  const bool notified = RealWaitDeadline(notification, deadline);
  if (notified) __tsan_acquire(Address(notification));
  return notified;
}

}  // namespace epo
