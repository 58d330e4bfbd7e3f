#include "server/mailbox.h"

#include <utility>

#include "server/job_state.h"
#include "server/status.h"

namespace epo {

void Mailbox::Post(std::vector<std::unique_ptr<LiveJob>> lives) {
  const absl::MutexLock lock(&mutex_);
  if (mail_.stop) return;
  for (std::unique_ptr<LiveJob>& live : lives) mail_.submitted.push_back(std::move(live));
}

void Mailbox::Post(Mail::Request request) {
  {
    const absl::MutexLock lock(&mutex_);
    if (!mail_.stop) return mail_.requests.push_back(std::move(request));
  }
  request.done(ShuttingDown());
}

void Mailbox::Post(Mail::SweepRequest request) {
  {
    const absl::MutexLock lock(&mutex_);
    if (!mail_.stop) return mail_.cancelled_sweeps.push_back(std::move(request));
  }
  request.done(ShuttingDown());
}

void Mailbox::Post(std::unique_ptr<ModelCall> call) {
  absl::Status refused;
  {
    const absl::MutexLock lock(&mutex_);
    if (mail_.stop) {
      refused = ShuttingDown();
    } else if (calls_ >= max_calls_) {
      refused = WithRetry(MakeError(absl::StatusCode::kResourceExhausted,
                                    "too many calls to score or attribute prompts are waiting; "
                                    "try again later",
                                    "SCORE_QUEUE_FULL"),
                          absl::Seconds(1));
    } else {
      ++calls_;
      return mail_.calls.push_back(std::move(call));
    }
  }
  call->Fail(refused);
}

void Mailbox::Close() {
  const absl::MutexLock lock(&mutex_);
  mail_.stop = true;
}

Mail Mailbox::Take(absl::Time deadline) {
  const absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithDeadline(absl::Condition(this, &Mailbox::HasMail), deadline);
  Mail mail;
  std::swap(mail, mail_);
  mail_.stop = mail.stop;
  return mail;
}

void Mailbox::ReleaseCalls(int count) {
  const absl::MutexLock lock(&mutex_);
  calls_ -= count;
}

}  // namespace epo
