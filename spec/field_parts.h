// The parts of the table of fields (spec/fields.h), one per file of rows. Only field_table.cc puts
// them together.
#pragma once

#include <vector>

#include "spec/fields.h"

namespace tandem {

inline constexpr double kMaxExactInteger = 9007199254740991.0;  // 2^53 - 1: survives JSON readers
inline constexpr double kMaxTokens = 1048576;

std::vector<Field> JobFields();        // field_table.cc
std::vector<Field> AttentionFields();  // field_table_attention.cc
std::vector<Field> TransferFields();   // field_table_stages.cc
std::vector<Field> FinetuneFields();   // field_table_stages.cc
std::vector<Field> RunFields();        // field_table_run.cc
std::vector<Field> EvaluateFields();   // field_table_run.cc
std::vector<Field> ExportFields();     // field_table_run.cc

}  // namespace tandem
