// Ids of jobs and sweeps.
#ifndef EPO_SERVER_NEW_ID_H_
#define EPO_SERVER_NEW_ID_H_

#include <random>
#include <string>

namespace epo {

// `prefix` and 60 random bits, as 12 lowercase letters or digits.
inline std::string NewId(const std::string& prefix) {
  constexpr char kBase32[] = "abcdefghijklmnopqrstuvwxyz234567";
  std::random_device random;
  std::string id = prefix;
  for (int i = 0; i < 12; ++i) id += kBase32[random() % 32];
  return id;
}

inline std::string NewJobId() { return NewId("j"); }
inline std::string NewSweepId() { return NewId("sweep-"); }

}  // namespace epo

#endif  // EPO_SERVER_NEW_ID_H_
