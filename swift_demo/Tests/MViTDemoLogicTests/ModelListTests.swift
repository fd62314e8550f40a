import Foundation
import MViTKit
import Testing

@testable import MViTDemoLogic

@Suite("The list of models")
struct AppModelListTests {
  private func folder(_ names: [String]) throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
      "models-\(UUID().uuidString)", isDirectory: true)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    for name in names {
      let url = folder.appendingPathComponent(name)
      if name.hasSuffix(".json") || name.hasSuffix(".txt") {
        try Data().write(to: url)
      } else {
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
      }
    }
    return folder
  }

  @Test("bundled models come first, each group by name whatever its case")
  func order() throws {
    let bundled = try folder(["b.mlmodelc", "A.mlpackage", "notes.txt", "folder"])
    let own = try folder(["0.mlpackage"])
    let list = ModelList(bundled: bundled, own: [own])
    #expect(list.entries.map(\.name) == ["A", "b", "0"])
    #expect(list.entries.map(\.isBundled) == [true, true, false])
  }

  @Test("of two forms of a model the compiled one is listed")
  func compiledWins() throws {
    let list = ModelList(bundled: try folder(["a.mlpackage", "a.mlmodelc"]))
    #expect(list.entries.map(\.url.lastPathComponent) == ["a.mlmodelc"])
  }

  @Test("a self-test belongs to the model of its name")
  func selfTests() throws {
    let list = ModelList(
      bundled: try folder(["a.mlmodelc", "a.selftest.json", "b.mlmodelc", "c.selftest.json"]))
    #expect(
      list.entries.map { $0.selfTest?.lastPathComponent } == ["a.selftest.json", nil])
  }

  @Test("a missing folder has no models")
  func missing() {
    let nowhere = URL(fileURLWithPath: "/nowhere-\(UUID().uuidString)")
    #expect(ModelList(bundled: nil, own: [nowhere]).entries.isEmpty)
  }

  @Test("a model on its own has the self-test beside it")
  func standalone() throws {
    let folder = try folder(["a.mlpackage", "a.selftest.json", "b.mlpackage"])
    let first = ModelEntry.standalone(folder.appendingPathComponent("a.mlpackage"))
    #expect(first.selfTest?.lastPathComponent == "a.selftest.json")
    #expect(ModelEntry.standalone(folder.appendingPathComponent("b.mlpackage")).selfTest == nil)
  }
}
