// Who makes a call, and by what right.
#ifndef EPO_SERVER_CALL_CONTEXT_H_
#define EPO_SERVER_CALL_CONTEXT_H_

#include <memory>
#include <string>

namespace epo {

// Each includes those before it.
enum class Role {
  kRead,    // see the client's own jobs, the model, tokens
  kSubmit,  // make work for the device, and end one's own
  kAdmin,   // everybody's jobs
};

// What the edge knows of a call when it hands it on.
struct CallContext {
  // Name of the API key; empty on a server without keys, where everybody is an admin.
  std::string client;
  Role role = Role::kAdmin;
  // Where the call comes from, without the port: "ipv4:127.0.0.1".
  std::string peer;
  // Counts a stream among its client's open ones for as long as somebody holds it.
  std::shared_ptr<void> permit;

  // Whether a job or sweep exists as far as the caller may know.
  template <class Resource>
  bool Sees(const Resource& resource) const {
    return role == Role::kAdmin || resource.client() == client;
  }
};

}  // namespace epo

#endif  // EPO_SERVER_CALL_CONTEXT_H_
