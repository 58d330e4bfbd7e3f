// Protocol messages as JSON for people and scripts. Pure functions, safe from any thread.
#ifndef EPO_CLIENT_CLI_JSON_H_
#define EPO_CLIENT_CLI_JSON_H_

#include <google/protobuf/message.h>

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace epo::cli {

// The message with the contract's own field names, all of them: an absent optional field or message
// is null (of a oneof only the set member is there), an enum its name, a 64-bit integer a number, a
// float the shortest decimal that reads back as the same float32, a NaN or infinity null, a
// Timestamp RFC 3339 in UTC, TokenIds the plain list of ids, bytes base64.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// The value on one line; characters that could steer a terminal are written as \uNNNN.
std::string Compact(const nlohmann::ordered_json& value);

// The value indented by two, with lists of plain values kept on one line each. Ends without a
// newline.
std::string Pretty(const nlohmann::ordered_json& value);

}  // namespace epo::cli

#endif  // EPO_CLIENT_CLI_JSON_H_
