// The table of fields and the proto descriptor say the same, both ways; explain knows every field.
#include "spec/fields.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "spec/nearest.h"
#include "spec/spec.h"

namespace tandem {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

// Path -> descriptor for every field below JobSpec; stages' own children are the overrides' paths.
std::map<std::string, const FieldDescriptor*> ProtoFields() {
  std::map<std::string, const FieldDescriptor*> fields;
  const std::function<void(const Descriptor&, const std::string&)> walk =
      [&](const Descriptor& type, const std::string& prefix) {
        for (int i = 0; i < type.field_count(); ++i) {
          const auto* field = type.field(i);
          const std::string path = prefix.empty() ? field->name() : prefix + "." + field->name();
          fields[TablePath(path)] = field;
          if (field->message_type() != nullptr) walk(*field->message_type(), path);
        }
      };
  walk(*v1::JobSpec::descriptor(), "");
  return fields;
}

FieldType TypeOf(const FieldDescriptor& field) {
  const bool list = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return list ? FieldType::kStages : FieldType::kGroup;
    case FieldDescriptor::CPPTYPE_STRING:
      return list ? FieldType::kTexts : FieldType::kText;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return list ? FieldType::kReals : FieldType::kReal;
    case FieldDescriptor::CPPTYPE_BOOL:
      return FieldType::kFlag;
    default:
      return list ? FieldType::kIntegers : FieldType::kInteger;
  }
}

TEST(Fields, EveryProtoFieldHasARowOfItsType) {
  const auto proto = ProtoFields();
  EXPECT_GT(proto.size(), 55u);
  for (const auto& [path, descriptor] : proto) {
    const Field* row = FindField(path);
    ASSERT_NE(row, nullptr) << path << " is in the proto and not in the table";
    EXPECT_EQ(row->type, TypeOf(*descriptor)) << path;
    EXPECT_EQ(row->max_items > 0, descriptor->is_repeated()) << path << ": lists have a limit";
  }
}

TEST(Fields, EveryRowIsAProtoFieldAndSaysWhatItIs) {
  const auto proto = ProtoFields();
  for (const auto& row : Fields()) {
    const std::string path(row.path);
    EXPECT_TRUE(proto.contains(path)) << path << " is in the table and not in the proto";
    EXPECT_FALSE(row.words.empty()) << path;
    EXPECT_FALSE(IsLaterField(path)) << path << " is built, and listed as not available";
    if (row.type == FieldType::kGroup || row.required) continue;
    EXPECT_FALSE(DefaultWords(row).empty()) << path << " has no default and is not required";
  }
}

// Whatever waits for its engine is refused by name at submit, and takes its default.
TEST(Fields, WhatIsNotBuiltIsRefusedByName) {
  for (const auto& row : Fields()) {
    const std::string path(row.path);
    for (const auto value : row.later) {
      EXPECT_EQ(std::ranges::count(row.allowed, value), 0) << path;
      EXPECT_NE(Explain(path)->find(std::string(value)), std::string::npos) << path;
    }
    if (row.not_built) {
      EXPECT_NE(Explain(path)->find("Not available in this version"), std::string::npos) << path;
    }
  }
}

TEST(Fields, PathsLoseTheirIndices) {
  EXPECT_EQ(TablePath("stages[12].finetune.lora.targets[3]"), "finetune.lora.targets");
  EXPECT_EQ(TablePath("stages[0]"), "stages");
  EXPECT_EQ(FindField("finetune.stepz"), nullptr);
}

TEST(Explain, KnowsEveryField) {
  const auto tree = Explain("");
  ASSERT_TRUE(tree.ok());
  for (const auto& row : Fields()) {
    const std::string path(row.path);
    const auto text = Explain(path);
    ASSERT_TRUE(text.ok()) << path;
    EXPECT_TRUE(text->starts_with(path)) << *text;
    EXPECT_NE(text->find(row.words.substr(0, 20)), std::string::npos) << path;
    EXPECT_NE(tree->find(path.substr(path.rfind('.') + 1) + ":"), std::string::npos) << path;
  }
}

TEST(Explain, OneFieldInFull) {
  EXPECT_EQ(*Explain("finetune.ssd.granularity"),
            "finetune.ssd.granularity\n"
            "  text, one of micro_batch, layer, row\n"
            "  default: micro_batch\n"
            "\n"
            "  What one draw decides for: the whole model on a micro-batch, each layer, or each "
            "sequence.\n");
}

TEST(Explain, UnknownFieldsGetTheNearest) {
  EXPECT_EQ(Explain("finetune.stepz").status().message(),
            "finetune.stepz is not a field; did you mean finetune.steps?");
  EXPECT_EQ(Explain("span").status().message(),
            "span is not a field; did you mean attention.linear.span?");
  EXPECT_EQ(Explain("parallelism.tensor").status().message(),
            "parallelism.tensor is not available in this version");
  EXPECT_EQ(Explain("qqqqqqq").status().message(),
            "qqqqqqq is not a field; `tandem explain` lists them");
}

TEST(NearestName, FindsTyposAndNothingElse) {
  const std::vector<std::string> names = {"recipe", "stages", "seed"};
  EXPECT_EQ(NearestName("receipe", names), "recipe");
  EXPECT_EQ(NearestName("recpie", names), "recipe");
  EXPECT_EQ(NearestName("sede", names), "seed");
  EXPECT_EQ(NearestName("window", names), "");
  EXPECT_EQ(NearestName("", names), "");
  EXPECT_EQ(NearestName("x", {"y"}), "");
}

}  // namespace
}  // namespace tandem
